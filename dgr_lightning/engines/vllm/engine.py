"""Generation and scoring with vLLM, offline: one engine per GPU or tensor-parallel group, or one on the CPU.

Each engine has more requests than it can decode at once, and never many more: a free slot is filled at once, and what is
finished is yielded at once. All requests of an example go to the same engine, by a hash of its id, where the common part of
their prompts is in the prefix cache.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dgr_lightning.config import EngineConfig
from dgr_lightning.config.setting import AUTO
from dgr_lightning.console import say
from dgr_lightning.distributed.gpu_memory import smallest_gpu_memory
from dgr_lightning.engines.engine import Completion, Decoder, Request, Sampling
from dgr_lightning.engines.request_queue import RequestQueue, with_budgets
from dgr_lightning.engines.vllm.arguments import engine_arguments
from dgr_lightning.engines.vllm.environments import cpu_environments, cuda_environments, visible_devices
from dgr_lightning.engines.vllm.messages import Generate, Generated, Score, Scored, Setup
from dgr_lightning.engines.vllm.pool import VllmPool
from dgr_lightning.engines.vllm.sizing import ModelSize, explanation, tensor_parallel_size
from dgr_lightning.errors import UserError

# Batches that an engine has: one that is decoded, and one that waits.
_BATCHES_OPEN = 2
# Examples are not spread evenly over engines: the busiest one may have this many times as much, so that none is idle.
_MAX_IMBALANCE = 4
# Requests that are taken at once: the first are generated while the next prompts are made.
_SENT_AT_ONCE = 32


class VllmEngine:
    """An `Engine` over vLLM processes.

    Attributes:
        max_length: tokens that prompt and output may have together.
    """

    def __init__(
        self, folder: Path, decoder: Decoder, engine: EngineConfig, device: str, trust_remote_code: bool = False
    ) -> None:
        """Starts the engines and waits until they have loaded the model.

        Args:
            folder: local Hugging Face folder.
            decoder: decodes tokens to text.
            engine: precision (a value, not `auto`), batch size, memory, number of engines and so on.
            device: `cpu` or `cuda`.
            trust_remote_code: run code that lies in the folder.

        Raises:
            UserError: more devices are asked for than there are, or vLLM cannot serve the model; it says what to write.
            RuntimeError: an engine has died.
        """
        if device == "cuda" and engine.tensor_parallel == AUTO:
            engine = _sized(engine, folder, trust_remote_code)
        environments = cpu_environments(engine) if device == "cpu" else cuda_environments(engine)
        say(f"vLLM starts: {len(environments)} engine(s) on {_devices(engine, device, len(environments))}")
        self._decoder = decoder
        setup = Setup(engine_arguments(folder, engine, device, trust_remote_code), device)
        try:
            self._pool = VllmPool(setup, environments)
        except UserError as error:
            raise UserError(f"vLLM does not start with {folder}: {error}\n{_advice(str(error), device, engine)}") from None
        self.max_length, self._batch_size = self._pool.max_length, self._pool.batch_size

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        """Yields one completion a request, in the order in which they finish.

        A completion ends with `length` at `sampling.max_new_tokens` or where prompt and completion have `max_length` tokens;
        where the prompt leaves no room, it is empty.

        Raises:
            RuntimeError: an engine has died.
        """
        queue = RequestQueue(requests)
        keys: dict[int, str] = {}
        try:
            while keys or not queue.exhausted:
                room = self._room()
                taken = queue.take(room)
                budgeted, empty = with_budgets(taken, sampling.max_new_tokens, self.max_length)
                sent: list[tuple[int, Generate]] = []
                for request, budget in budgeted:
                    message = Generate.of(self._pool.next_id(), request, budget, sampling)
                    keys[message.request_id] = request.key
                    sent.append((_engine_of(request.key, len(self._pool)), message))
                self._pool.submit(sent)
                yield from empty
                # Where all that was asked for came, there may be more to send before anything is waited for.
                more = bool(empty) or 0 < len(taken) == room
                unfinished = bool(keys) or not queue.exhausted
                for result in self._pool.collect(keys, wait_for_any=unfinished and not more):
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
            RuntimeError: an engine has died.
        """
        waiting = deque(i for i, (_, target) in enumerate(pairs) if target)
        longest = max((sum(map(len, pairs[i])) for i in waiting), default=0)
        if longest > self.max_length:
            raise UserError(
                f"engine=vllm: a text of {longest} tokens has to be scored, and vLLM was started for {self.max_length} (as "
                f"engine.max_length, the model and its memory allow). Write engine.max_length={longest}, or shorten the text."
            )
        scores: list[list[float]] = [[] for _ in pairs]
        indices: dict[int, int] = {}
        try:
            while waiting or indices:
                room = _BATCHES_OPEN * self._batch_size * len(self._pool) - len(indices)
                load = self._pool.num_open()
                sent: list[tuple[int, Score]] = []
                for _ in range(min(room, len(waiting), _SENT_AT_ONCE)):
                    i = waiting.popleft()
                    prompt, target = pairs[i]
                    message = Score(self._pool.next_id(), [*prompt, *target], len(prompt))
                    indices[message.request_id] = i
                    # The prefix cache does not serve scores, so they go to the engine with the least load.
                    engine = load.index(min(load))
                    load[engine] += 1
                    sent.append((engine, message))
                self._pool.submit(sent)
                for result in self._pool.collect(indices, wait_for_any=not waiting or room <= len(sent)):
                    assert isinstance(result, Scored)
                    scores[indices.pop(result.request_id)] = result.log_probabilities
        finally:
            self._pool.drop(indices)
        return scores

    def close(self) -> None:
        """Ends the engines and waits for that; their devices' memory is then free."""
        self._pool.close()

    def _room(self) -> int:
        """Returns how many requests to take now: none where every engine has enough."""
        load, enough = self._pool.num_open(), _BATCHES_OPEN * self._batch_size
        missing = (enough - min(load)) * len(load)
        return max(0, min(_SENT_AT_ONCE, missing, _MAX_IMBALANCE * enough * len(load) - sum(load)))


def _engine_of(key: str, num_engines: int) -> int:
    """Returns the index of a request's engine: the same for all keys with the same text before the first slash."""
    name = key.partition("/")[0]
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, person=b"engine").digest(), "little") % num_engines


def _sized(engine: EngineConfig, folder: Path, trust_remote_code: bool) -> EngineConfig:
    """Returns the config with the number of devices that one engine is split over, and says so where it is not one."""
    devices = visible_devices()
    memory = smallest_gpu_memory() if len(devices) > 1 else None
    if memory is None:
        return replace(engine, tensor_parallel=1)
    model = ModelSize.of(folder, engine.precision, trust_remote_code)
    size = tensor_parallel_size(model, engine, memory, len(devices))
    if size > 1:
        say(explanation(model, engine, memory, size))
    return replace(engine, tensor_parallel=size)


def _devices(engine: EngineConfig, device: str, num_engines: int) -> str:
    return "the CPU" if device == "cpu" else f"{num_engines * engine.devices_each} GPU(s)"


def _advice(reason: str, device: str, engine: EngineConfig) -> str:
    """Returns the override that may help, judging by vLLM's reason."""
    reason = reason.casefold()
    if "attention heads" in reason or "tensor parallel" in reason:
        return f"Write another engine.tensor_parallel than {engine.devices_each}."
    if "memory" in reason or "kv cache" in reason:
        if device == "cpu":
            return f"Write another engine.cpu_cache_gib than {engine.cpu_cache_gib}, or a smaller engine.max_length."
        more = f"engine.tensor_parallel={2 * engine.devices_each}"
        return f"Write another engine.memory than {engine.memory}, a smaller engine.max_length, or {more}."
    if "max_model_len" in reason:
        return f"Write a smaller engine.max_length than {engine.max_length}."
    return "engine=transformers takes most models that vLLM does not."
