"""Generation and scoring with vLLM on the nodes of a Ray cluster, through Ray Data and `ray.data.llm`.

All requests go into one streaming dataset (`ray.pipeline`), whose engines load the model once and live as long as this. As with
engine=vllm, each engine has more requests than it can decode at once, never many more, and what is finished is yielded at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dgr_lightning.config import EngineConfig
from dgr_lightning.engines.engine import Completion, Decoder, Request, Sampling
from dgr_lightning.engines.ray.pool import RayPool
from dgr_lightning.engines.request_queue import RequestQueue, with_budgets
from dgr_lightning.engines.vllm.arguments import engine_arguments
from dgr_lightning.engines.vllm.messages import Generate, Generated, Score, Scored, Setup
from dgr_lightning.errors import UserError

# Requests that are taken at once: the first are generated while the next prompts are made.
_SENT_AT_ONCE = 32


class RayEngine:
    """An `Engine` over vLLM engines on a Ray cluster.

    Attributes:
        max_length: tokens that prompt and output may have together.
    """

    def __init__(
        self, folder: Path, decoder: Decoder, engine: EngineConfig, device: str, trust_remote_code: bool = False
    ) -> None:
        """Joins or starts a cluster, starts the engines and waits until the first has loaded the model.

        Args:
            folder: local Hugging Face folder, which every node sees under the same path.
            decoder: decodes tokens to text.
            engine: precision (a value, not `auto`), address of the cluster, number of engines, batch size and so on.
            device: `cpu` or `cuda`.
            trust_remote_code: run code that lies in the folder.

        Raises:
            UserError: no such cluster; a node lacks the model or vLLM; more devices are asked for than there are; vLLM cannot
                serve the model.
            RuntimeError: an engine has died.
        """
        self._decoder = decoder
        self.max_length = engine.max_length or _num_positions(folder, trust_remote_code)
        arguments = _engine_arguments(folder, engine, device, trust_remote_code) | {"max_model_len": self.max_length}
        self._pool = RayPool(Setup(arguments, device), engine, decoder.pad_id)

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        """Yields one completion a request, in the order in which they finish.

        A completion ends with `length` at `sampling.max_new_tokens` or where prompt and completion have `max_length` tokens;
        where the prompt leaves no room, it is empty.

        Raises:
            RuntimeError: engines die again and again; what was yielded before remains valid.
        """
        queue = RequestQueue(requests)
        keys: dict[int, str] = {}
        try:
            while keys or not queue.exhausted:
                more = True
                while more and (room := min(self._pool.capacity - self._pool.num_inside, _SENT_AT_ONCE)) > 0:
                    taken = queue.take(room)
                    more = len(taken) == room
                    budgeted, empty = with_budgets(taken, sampling.max_new_tokens, self.max_length)
                    sent: list[Generate] = []
                    for request, budget in budgeted:
                        sent.append(Generate.of(self._pool.next_id(), request, budget, sampling))
                        keys[sent[-1].request_id] = request.key
                    self._pool.submit(sent)
                    yield from empty
                for result in self._pool.collect(keys):
                    assert isinstance(result, Generated)
                    text = self._decoder.decode(result.token_ids)
                    yield Completion(keys.pop(result.request_id), result.token_ids, text, result.finish_reason)
        finally:
            self._pool.drop(keys)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Returns for each (prompt ids, target ids) the natural-log probability of every target token, in order.

        The prompt is at least one token; an empty target has an empty score.

        Raises:
            UserError: a pair is longer than `max_length`.
            RuntimeError: engines die again and again.
        """
        longest = max((len(prompt) + len(target) for prompt, target in pairs if target), default=0)
        if longest > self.max_length:
            raise UserError(
                f"engine=ray: a text of {longest} tokens has to be scored, and vLLM was started for {self.max_length}. Write "
                f"engine.max_length={longest}, or take a model with more positions."
            )
        scores: list[list[float]] = [[] for _ in pairs]
        waiting = (i for i, (_, target) in enumerate(pairs) if target)
        indices: dict[int, int] = {}
        try:
            while True:
                sent: list[Score] = []
                # As many again as a generation that may be suspended meanwhile has in the engines.
                for i in islice(waiting, self._pool.capacity - len(indices)):
                    prompt, target = pairs[i]
                    sent.append(Score(self._pool.next_id(), [*prompt, *target], len(prompt)))
                    indices[sent[-1].request_id] = i
                if not indices:
                    return scores
                self._pool.submit(sent)
                for result in self._pool.collect(indices):
                    assert isinstance(result, Scored)
                    scores[indices.pop(result.request_id)] = result.log_probabilities
        finally:
            self._pool.drop(indices)

    def close(self) -> None:
        """Ends the engines and leaves the cluster, which ends too if it was started here."""
        self._pool.close()


def _engine_arguments(folder: Path, engine: EngineConfig, device: str, trust_remote_code: bool) -> dict[str, Any]:
    """Returns the arguments of vLLM's `EngineArgs`, as `ray.data.llm` takes them."""
    arguments = engine_arguments(folder.resolve(), engine, device, trust_remote_code)
    del arguments["scheduling_policy"]  # ray.data.llm gives requests no priority
    if device == "cpu":
        arguments["logits_processors"] = ["dgr_lightning.engines.vllm.noise:RequestNoise"]
    return arguments


def _num_positions(folder: Path, trust_remote_code: bool) -> int:
    """Returns the number of a model's positions."""
    from dgr_lightning.models.weights import load_config

    return int(load_config(folder, trust_remote_code).get_text_config().max_position_embeddings)
