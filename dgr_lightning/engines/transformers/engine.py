"""Generation and scoring with a Hugging Face causal language model, on the CPU or on one GPU: the default engine.

A completion does not depend on the batch: masks are exact, and the noise of a token belongs to its request
(`engines.sampling`). In fp32, greedy text is the same however batches are composed. The decoding loop is in `decoding`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from dgr_lightning.engines.engine import Completion, Decoder, Request, Sampling
from dgr_lightning.engines.request_queue import RequestQueue, with_budgets
from dgr_lightning.engines.transformers.decoding import PREFILL_TOKENS, ContinuousBatch, DecodingRow, pad_right
from dgr_lightning.engines.transformers.kv_cache import grouped_attention
from dgr_lightning.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ATTENTION = "dgr_lightning"
# Logits of one forward of scoring: 0.5 GB and 4 GB in fp32.
_SCORED_LOGITS = {"cpu": 2**27, "cuda": 2**30}
# Batches that wait for slots: rows of similar length are admitted together, and more rows to choose from are more similar.
_BATCHES_WAITING = 4


class TransformersEngine:
    """An `Engine` over a loaded model, on the model's device: also over one in training, which it leaves as it was."""

    def __init__(self, model: PreTrainedModel, decoder: Decoder, precision: str, batch_size: int = 128) -> None:
        """Wraps a model.

        Args:
            model: any causal language model of transformers with full attention in every layer.
            decoder: decodes tokens to text.
            precision: `bf16` or `fp32`, the type of the computation; fp32 weights compute in bf16 under autocast.
            batch_size: largest number of rows decoded together.

        Raises:
            ValueError: bf16 weights cannot compute in fp32.
            UserError: layers with another kind of attention.
        """
        if precision == "fp32" and model.dtype != torch.float32:
            raise ValueError(f"precision fp32 takes fp32 weights, not {model.dtype}")
        if why := _other_layers(model):
            raise UserError(f"{why}. Take a model with full attention in every layer, such as Qwen2, Qwen3 or Llama.")
        self.model = model
        self.batch_size = batch_size
        self._decoder = decoder
        self._max_positions: int = model.config.get_text_config().max_position_embeddings
        self._autocast = precision == "bf16" and model.dtype == torch.float32

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        """Yields one completion a request, in the order in which they finish.

        A completion ends with `length` at `sampling.max_new_tokens` or at the model's last position; where the prompt leaves no
        position, it is empty.
        """
        queue = RequestQueue(requests)
        cache_dtype = torch.bfloat16 if self._autocast else self.model.dtype
        batch = ContinuousBatch(self.model, self._decoder.pad_id, sampling, self.batch_size, cache_dtype)
        while batch.busy or not queue.exhausted:
            taken = queue.take(_BATCHES_WAITING * self.batch_size - batch.num_waiting)
            budgeted, empty = with_budgets(taken, sampling.max_new_tokens, self._max_positions)
            yield from empty
            batch.add([DecodingRow(one.key, list(one.prompt_ids), len(one.prompt_ids), budget) for one, budget in budgeted])
            if batch.busy:
                with self._inference():
                    finished = batch.run()
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
            # With padding on the right, no token attends to padding, so no mask is needed.
            ids = pad_right([[*pairs[i][0], *pairs[i][1]] for i in chosen], self._decoder.pad_id, device)
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
        """Drops the reference to the model; its memory is freed unless a training still holds it."""
        del self.model

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """Turns off gradients and dropout, sets this precision and attention; afterwards the model is as it was."""
        training = [module for module in self.model.modules() if module.training]
        attention = self.model.config._attn_implementation
        try:
            self.model.eval()
            if why := _own_attention(self.model):
                raise UserError(f"{why}. Take engine=vllm.")
            with torch.inference_mode(), torch.autocast(self.model.device.type, torch.bfloat16, enabled=self._autocast):
                yield
        finally:
            self.model.set_attn_implementation(attention)
            for module in training:
                module.training = True


def why_undecodable(model: PreTrainedModel, longest_prompt: int) -> str | None:
    """Returns why this engine cannot decode with a model, as a clause; None where it can.

    Args:
        model: on the meta device, without values; its attention is replaced by the engine's.
        longest_prompt: tokens of the longest prompt.
    """
    if why := _other_layers(model) or _own_attention(model):
        return why
    positions = model.config.get_text_config().max_position_embeddings
    if longest_prompt >= positions:
        return (
            f"{type(model).__name__} has {positions} positions, and a prompt of {longest_prompt} tokens leaves none to answer"
        )
    return None


def _other_layers(model: PreTrainedModel) -> str | None:
    settings = model.config.get_text_config().to_dict()
    # Some families name the kind of every layer, others give only the size of a window.
    kinds = settings.get("layer_types") or (["sliding_attention"] if settings.get("sliding_window") else [])
    if other := set(kinds) - {"full_attention"}:
        return f"{type(model).__name__} has layers with {', '.join(sorted(other))}, which engine=transformers does not decode"
    return None


def _own_attention(model: PreTrainedModel) -> str | None:
    """Puts this engine's attention in place; returns why that cannot be done."""
    from transformers import AttentionInterface

    AttentionInterface.register(_ATTENTION, grouped_attention)
    model.set_attn_implementation(_ATTENTION)
    if model.config._attn_implementation != _ATTENTION:
        return f"{type(model).__name__} has its own attention code, which engine=transformers cannot replace"
    return None
