"""Generation and scoring with vLLM, offline: one engine per GPU or tensor-parallel group, or one on the CPU.

Requests are fed so that each engine always has more than it can decode at once and never more than twice that: finished ones
come back at once, and no batch is ever drained. All requests of an example go to the same engine, by a hash of its id, where
the part of the prompt that they share is in the prefix cache.
"""

from __future__ import annotations

import atexit
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path

from dgr_lightning.config import EngineConfig
from dgr_lightning.console import progress, say
from dgr_lightning.engines import LENGTH, Completion, Decoder, Request, Sampling
from dgr_lightning.engines.feed import Feed
from dgr_lightning.engines.sampling import noise_stream
from dgr_lightning.engines.vllm_messages import Done, Drop, Generate, Generated, Score, Scored, Setup, Work
from dgr_lightning.engines.vllm_process import VllmProcess
from dgr_lightning.errors import UserError

# Work that an engine has, in batches: one that is decoded and one that waits.
_BATCHES_OPEN = 2
# Examples are not spread evenly over engines, and no engine should stand still because another has much to do.
_SPREAD = 4
# Requests that are taken and sent in one go, so that an engine begins while the next prompts are made.
_SENT_AT_ONCE = 32
_SECONDS_BETWEEN_LOOKS = 1.0


class VllmEngine:
    """An `Engine` over vLLM processes.

    Attributes:
        max_length: tokens that prompt and output may have together.
    """

    def __init__(
        self, folder: Path, decoder: Decoder, engine: EngineConfig, precision: str, device: str, trust_remote_code: bool = False
    ) -> None:
        """Starts the engines and waits until the model is loaded.

        Args:
            folder: local Hugging Face folder.
            decoder: makes text of tokens.
            engine: batch size, memory, number of engines and so on.
            precision: `bf16` or `fp32`, the type of weights and computation.
            device: `cpu` or `cuda`.
            trust_remote_code: run code that lies in the folder.

        Raises:
            UserError: more devices asked for than there are, or vLLM cannot serve the model so; the message says what to write.
            RuntimeError: an engine has died.
        """
        groups = _cpu_groups(engine) if device == "cpu" else _cuda_groups(engine)
        where = "the CPU" if device == "cpu" else f"{sum(map(len, groups))} GPU(s)"
        say(f"vLLM starts: {len(groups)} engine(s) on {where}, which takes from a quarter of a minute to several minutes")
        self._decoder, self._batch_size = decoder, engine.batch_size
        setup = Setup(_arguments(folder, engine, precision, trust_remote_code), device)
        self._processes: list[VllmProcess] = []
        self._open: dict[int, VllmProcess] = {}
        self._arrived: dict[int, Done] = {}
        self._num_sent = 0
        atexit.register(self.close)
        try:
            for number, devices in enumerate(groups):
                environment = _environment(devices, device, engine, len(groups))
                self._processes.append(VllmProcess(f"vLLM's engine {number}", setup, environment))
            with progress("vLLM's engines", total=len(groups)) as advance:
                lengths = []
                for process in self._processes:
                    lengths.append(process.wait_until_ready())
                    advance()
        except BaseException as error:
            self._close(now=True)
            if isinstance(error, (UserError, RuntimeError)):
                raise type(error)(f"{error}{_advice(str(error), device, engine)}") from None
            raise
        self.max_length = min(lengths)

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        """Yields one completion a request, in the order in which they finish.

        A request gets at most the tokens that `max_length` leaves it behind its prompt, possibly none; running into that end is
        `length`, as is running into `sampling.max_new_tokens`.

        Raises:
            RuntimeError: an engine has died.
        """
        feed = Feed(requests)
        keys: dict[int, str] = {}
        try:
            while keys or not feed.ended:
                room = self._room(len(keys))
                taken = feed.take(room)
                yield from self._submit(taken, sampling, keys)
                idle = len(taken) < room or not room
                for done in self._collect(keys, wait_for_one=idle and bool(keys)):
                    assert isinstance(done, Generated)
                    text = self._decoder.decode(done.token_ids)
                    yield Completion(keys.pop(done.number), done.token_ids, text, done.finish_reason)
        finally:
            self._drop(keys)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Returns for each (prompt ids, target ids) the natural-log probability of every target token, in order.

        The prompt is at least one token; an empty target has an empty score.

        Raises:
            UserError: a pair is longer than `max_length`.
            RuntimeError: an engine has died.
        """
        longest = max((len(prompt) + len(target) for prompt, target in pairs if target), default=0)
        if longest > self.max_length:
            raise UserError(
                f"a text of {longest} tokens is to be scored, and vLLM was started for {self.max_length}. Write "
                f"engine.max_length={longest}, or take a model with more positions."
            )
        scores: list[list[float]] = [[] for _ in pairs]
        waiting = (i for i, (_, target) in enumerate(pairs) if target)
        indices: dict[int, int] = {}
        try:
            ended = False
            while indices or not ended:
                room = self._num_allowed - len(indices)
                batches: dict[int, list[Work]] = {}
                while room > 0 and not ended:
                    if (i := next(waiting, None)) is None:
                        ended = True
                        break
                    prompt, target = pairs[i]
                    indices[self._num_sent] = i
                    # The prefix cache does not serve scores, so they go wherever there is least to do.
                    place = min(range(len(self._processes)), key=lambda place: self._processes[place].num_open)
                    self._put(batches, place, Score(self._num_sent, [*prompt, *target], len(prompt)))
                    room -= 1
                self._send(batches)
                for done in self._collect(indices, wait_for_one=bool(indices)):
                    assert isinstance(done, Scored)
                    scores[indices.pop(done.number)] = done.log_probabilities
        finally:
            self._drop(indices)
        return scores

    def close(self) -> None:
        """Ends the engines and waits for that; their devices' memory is then free."""
        self._close(now=False)

    def _close(self, *, now: bool) -> None:
        atexit.unregister(self.close)
        processes, self._processes = self._processes, []
        for process in processes:
            process.connection.close()
        for process in processes:
            process.close(now=now)
