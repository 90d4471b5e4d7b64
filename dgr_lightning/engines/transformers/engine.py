"""Generation and scoring with a Hugging Face causal language model, on the CPU or on one GPU: the default engine.

What a row generates does not depend on its company: masks are exact, and the noise of a token belongs to its request
(`engines.sampling`). In fp32, greedy text is the same however batches are cut. How rows are decoded: `engines.slots`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from dgr_lightning.engines.engine import LENGTH, Completion, Decoder, Request, Sampling
from dgr_lightning.engines.request_queue import Feed
from dgr_lightning.engines.transformers.decoding import PREFILL_TOKENS, Row, Slots, padded
from dgr_lightning.engines.transformers.kv_cache import grouped_attention
from dgr_lightning.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ATTENTION = "dgr_lightning"
# Logits that one forward of scoring makes: 0.5 GB and 4 GB in fp32.
_SCORED_LOGITS = {"cpu": 2**27, "cuda": 2**30}
# Batches that wait for a slot: rows of like length are seated together, and the more there are to choose from, the more alike.
_BATCHES_WAITING = 4


class TransformersEngine:
    """An `Engine` on a loaded model, where it is; that may be the live model of a training run, which is left as it was."""

    def __init__(self, model: PreTrainedModel, decoder: Decoder, precision: str, batch_size: int = 128) -> None:
        """Wraps a model.

        Args:
            model: any causal language model of transformers in which every layer attends to all that came before.
            decoder: makes text of tokens.
            precision: `bf16` or `fp32`, the type of the computation; fp32 weights compute in bf16 under autocast.
            batch_size: rows that are decoded together at most.

        Raises:
            ValueError: bf16 weights cannot compute in fp32.
            UserError: layers with another kind of attention.
        """
        if precision == "fp32" and model.dtype != torch.float32:
            raise ValueError(f"precision fp32 takes fp32 weights, not {model.dtype}")
        config = model.config.get_text_config()
        settings = config.to_dict()
        # Some families say it layer by layer, others by the size of the window alone.
        kinds = settings.get("layer_types") or (["sliding_attention"] if settings.get("sliding_window") else [])
        other = set(kinds) - {"full_attention"}
        if other:
            raise UserError(
                f"{type(model).__name__} has layers with {', '.join(sorted(other))}, which engine=transformers does not "
                "decode. Take a model with full attention in every layer, such as Qwen2, Qwen3 or Llama."
            )
        self.model = model
        self.batch_size = batch_size
        self._decoder = decoder
        self._max_positions: int = config.max_position_embeddings
        self._autocast = precision == "bf16" and model.dtype == torch.float32

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        """Yields one completion a request, in the order in which they finish.

        A request gets at most the tokens that the model's positions leave it behind its prompt, possibly none; running into
        that end is `length`, as is running into `sampling.max_new_tokens`.
        """
        feed = Feed(requests)
        cache_dtype = torch.bfloat16 if self._autocast else self.model.dtype
        slots = Slots(self.model, self._decoder.pad_id, sampling, self.batch_size, cache_dtype)
        while slots.busy or not feed.ended:
            rows = []
            for request in feed.take(_BATCHES_WAITING * self.batch_size - slots.num_waiting):
                num_prompt = len(request.prompt_ids)
                budget = min(sampling.max_new_tokens, self._max_positions - num_prompt)
                if budget > 0:
                    rows.append(Row(request.key, list(request.prompt_ids), num_prompt, budget))
                else:
                    yield Completion(request.key, (), "", LENGTH)
            slots.add(rows)
            if slots.busy:
                with self._inference():
                    finished = slots.run()
                for row, finish_reason in finished:
                    token_ids = tuple(row.ids[row.num_prompt :])
                    yield Completion(row.key, token_ids, self._decoder.decode(token_ids), finish_reason)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Returns for each (prompt ids, target ids) the natural-log probability of every target token, in order.

        The prompt is at least one token; an empty target has an empty score.
        """
        scores: list[list[float]] = [[] for _ in pairs]
        device, vocabulary = self.model.device, self.model.config.get_text_config().vocab_size
        waiting = deque(sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1])))
        while waiting:
            width = sum(map(len, pairs[waiting[0]]))
            num_tokens = min(PREFILL_TOKENS[device.type], _SCORED_LOGITS[device.type] // vocabulary)
            chosen = [waiting.popleft() for _ in range(min(len(waiting), max(1, num_tokens // width)))]
            # Padded on the right: nothing attends to what comes behind it, so no mask is needed.
            ids = padded([[*pairs[i][0], *pairs[i][1]] for i in chosen], self._decoder.pad_id, device)
            first = min(len(pairs[i][0]) for i in chosen) - 1
            with self._inference():
                logits = self.model(
                    input_ids=ids, use_cache=False, logits_to_keep=torch.arange(first, width - 1, device=device)
                ).logits
                for row, i in enumerate(chosen):
                    num_prompt, num_target = map(len, pairs[i])
                    own = logits[row, num_prompt - 1 - first :][:num_target].float()
                    targets = ids[row, num_prompt : num_prompt + num_target]
                    scores[i] = (own.gather(-1, targets[:, None])[:, 0] - own.logsumexp(-1)).tolist()
        return scores

    def close(self) -> None:
        """Lets go of the model, which may be somebody else's; its memory is free when nobody holds it."""
        del self.model

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """No gradients, no dropout, this precision, this engine's attention; afterwards the model is as it was."""
        from transformers import AttentionInterface

        AttentionInterface.register(_ATTENTION, grouped_attention)
        training = [module for module in self.model.modules() if module.training]
        attention = self.model.config._attn_implementation
        try:
            self.model.eval()
            self.model.set_attn_implementation(_ATTENTION)
            if self.model.config._attn_implementation != _ATTENTION:
                raise UserError(
                    f"{type(self.model).__name__} brings attention of its own, which engine=transformers cannot use."
                )
            with torch.inference_mode(), torch.autocast(self.model.device.type, torch.bfloat16, enabled=self._autocast):
                yield
        finally:
            self.model.set_attn_implementation(attention)
            for module in training:
                module.training = True
