"""Generation and scoring with vLLM on the nodes of a Ray cluster, through Ray Data and `ray.data.llm`.

What is asked for goes into one streaming dataset (`engines.ray_pipeline`), whose engines load the model once and live as long
as this. As with engine=vllm, each has more than it can decode at once and never much more, and what is finished is yielded at
once.

Where an engine or its node dies, all engines are started anew on what the cluster then has, and what was under way is generated
again: three times in a row, until something has come out again. Ray alone would start the dead one anew on its own node, and
wait without end where that node is gone.
"""

from __future__ import annotations

import atexit
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from ray.exceptions import RayError, RayTaskError
from rich.markup import escape

from dgr_lightning.config import EngineConfig
from dgr_lightning.console import say
from dgr_lightning.engines.engine import LENGTH, Completion, Decoder, Request, Sampling
from dgr_lightning.engines.ray.cluster import Cluster, environment
from dgr_lightning.engines.ray.pipeline import Pipeline
from dgr_lightning.engines.request_queue import Feed
from dgr_lightning.engines.sampling import noise_stream
from dgr_lightning.engines.vllm.engine import engine_arguments
from dgr_lightning.engines.vllm.messages import Done, Generate, Generated, Score, Scored, Work
from dgr_lightning.errors import UserError

_STARTS_AGAIN = 3
# Requests that are taken in one go: the first are generated while the next prompts are made.
_SENT_AT_ONCE = 32
# What vLLM raises where settings, memory or the model are to blame.
_MENDABLE = ("ValueError", "ValidationError", "NotImplementedError", "MemoryError", "OutOfMemoryError")


class RayEngine:
    """An `Engine` over vLLM engines on a Ray cluster.

    Attributes:
        max_length: tokens that prompt and output may have together.
        pipeline: Ray's dataset, which runs.
    """

    def __init__(
        self, folder: Path, decoder: Decoder, engine: EngineConfig, precision: str, device: str, trust_remote_code: bool = False
    ) -> None:
        """Joins or starts a cluster, starts the engines and waits until the first has loaded the model.

        Args:
            folder: local Hugging Face folder, which every node sees under the same path.
            decoder: makes text of tokens.
            engine: address of the cluster, number of engines, batch size and so on.
            precision: `bf16` or `fp32`, the type of weights and computation.
            device: `cpu` or `cuda`.
            trust_remote_code: run code that lies in the folder.

        Raises:
            UserError: no such cluster; a node lacks the model or vLLM; more devices are asked for than there are; vLLM cannot
                serve the model.
            RuntimeError: an engine has died.
        """
        self._decoder, self._engine, self._device = decoder, engine, device
        self._variables = environment(engine, device)
        self.max_length = engine.max_length or _positions(folder, trust_remote_code)
        self._arguments = _arguments(folder, engine, precision, device, trust_remote_code, self.max_length)
        self._numbers = count()
        self._open: dict[int, Work] = {}
        self._arrived: dict[int, Done] = {}
        self._num_inside = 0
        self._failures = 0
        self._cluster = Cluster(engine.ray_address, self._variables)
        atexit.register(self.close)
        try:
            self._cluster.check(folder, device)
            self.pipeline = self._start(again=False)
            self._wait_for_an_engine()
        except BaseException:
            atexit.unregister(self.close)
            self._cluster.leave()
            raise

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        """Yields one completion a request, in the order in which they finish.

        A request gets at most the tokens that `max_length` leaves it behind its prompt, possibly none; running into that end is
        `length`, as is running into `sampling.max_new_tokens`.

        Raises:
            RuntimeError: engines die again and again; what was yielded before stays good.
        """
        feed = Feed(requests)
        keys: dict[int, str] = {}
        try:
            while keys or not feed.ended:
                dry = False
                while not dry and (room := min(self.pipeline.room - self._num_inside, _SENT_AT_ONCE)) > 0:
                    taken = feed.take(room)
                    dry = len(taken) < room
                    unanswered: list[Completion] = []
                    work: list[Work] = []
                    for request in taken:
                        budget = min(sampling.max_new_tokens, self.max_length - len(request.prompt_ids))
                        if budget > 0:
                            work.append(self._generation(request, sampling, budget))
                            keys[work[-1].number] = request.key
                        else:
                            unanswered.append(Completion(request.key, (), "", LENGTH))
                    self._submit(work)
                    yield from unanswered
                for done in self._collect(keys):
                    assert isinstance(done, Generated)
                    text = self._decoder.decode(done.token_ids)
                    yield Completion(keys.pop(done.number), done.token_ids, text, done.finish_reason)
        finally:
            self._forget(keys)

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
                f"a text of {longest} tokens is to be scored, and vLLM was started for {self.max_length}. Write "
                f"engine.max_length={longest}, or take a model with more positions."
            )
        scores: list[list[float]] = [[] for _ in pairs]
        waiting = (i for i, (_, target) in enumerate(pairs) if target)
        indices: dict[int, int] = {}
        try:
            while True:
                work: list[Work] = []
                # Beside a generation that stands still meanwhile, as many again.
                for i in islice(waiting, self.pipeline.room - len(indices)):
                    prompt, target = pairs[i]
                    work.append(Score(next(self._numbers), [*prompt, *target], len(prompt)))
                    indices[work[-1].number] = i
                if not indices:
                    return scores
                self._submit(work)
                for done in self._collect(indices):
                    assert isinstance(done, Scored)
                    scores[indices.pop(done.number)] = done.log_probabilities
        finally:
            self._forget(indices)

    def close(self) -> None:
        """Ends the engines and leaves the cluster, which ends too if it was started here."""
        atexit.unregister(self.close)
        try:
            if self._num_inside:
                self.pipeline.abandon()
            else:
                self.pipeline.close()
        finally:
            self._cluster.leave()

    def _start(self, *, again: bool) -> Pipeline:
        """Starts engines on what the cluster has now; `again`: what was asked for may be gone."""
        engines = self._cluster.place(self._engine, self._device, at_most=again)
        nodes = self._cluster.nodes()
        say(
            f"Ray: {len(nodes)} node(s) with {sum(node.num_gpus for node in nodes)} GPU(s) and "
            f"{sum(node.num_cpus for node in nodes)} CPU(s), {'started here' if self._cluster.started else 'joined'}; "
            f"{engines.number} vLLM engine(s) start, which takes from half a minute to several minutes"
        )
        return Pipeline(self._arguments, engines, self._engine.batch_size, self._device, self._variables)

    def _wait_for_an_engine(self) -> None:
        """Generates one token: what is wrong with model or settings comes out here.

        Raises:
            UserError: vLLM cannot serve the model.
            RuntimeError: an engine has died otherwise.
        """
        probe = Generate(next(self._numbers), [self._decoder.pad_id], 1, 0.0, 1.0, (), 0)
        self._submit([probe])
        try:
            self._take()
        except RayError as error:
            cause = _cause(error)
            kind = UserError if cause.startswith(_MENDABLE) else RuntimeError
            raise kind(
                f"engine=ray: vLLM does not start with {self._arguments['model']}: {cause}\n"
                f"As the message has it, write a smaller engine.max_length than {self.max_length}, or another engine.memory or "
                "engine.tensor_parallel; engine=transformers takes most models that vLLM does not. What is not named "
                "here stands in Ray's logs on the node, by default in /tmp/ray/session_latest/logs/worker-*."
            ) from None
        self._arrived.clear()

    def _generation(self, request: Request, sampling: Sampling, budget: int) -> Work:
        stream = noise_stream(sampling.seed, request.key)
        return Generate(
            next(self._numbers), request.prompt_ids, budget, sampling.temperature, sampling.top_p, sampling.stop_ids, stream
        )

    def _submit(self, work: Sequence[Work]) -> None:
        if work:
            self._open |= {piece.number: piece for piece in work}
            self._num_inside += len(work)
            self.pipeline.put(work)

    def _collect(self, numbers: Collection[int]) -> list[Done]:
        """Returns what is done of the work with these numbers, and waits until something is; what else arrives is kept.

        Raises:
            RuntimeError: engines die again and again, or one has refused something.
        """
        while numbers and not (mine := [number for number in self._arrived if number in numbers]):
            death = None
            try:
                self._take()
                self._failures = 0
            except RayTaskError as error:
                raise RuntimeError(f"engine=ray: an engine has failed: {_cause(error)}") from None
            except RayError as error:
                death = _cause(error)
            # Only now, when nothing holds the error any more: its traceback holds the engines.
            if death:
                self._start_again(death)
        return [self._arrived.pop(number) for number in mine] if numbers else []

    def _take(self) -> None:
        """Waits for what is done next, whoever waits for it."""
        for done in self.pipeline.take():
            self._num_inside -= 1
            if self._open.pop(done.number, None):
                self._arrived[done.number] = done

    def _start_again(self, cause: str) -> None:
        """Starts all engines anew, and has them do what was under way."""
        self._failures += 1
        self.pipeline.abandon()
        self._num_inside = 0
        if self._failures > _STARTS_AGAIN:
            raise RuntimeError(
                f"engine=ray: engines have died {self._failures} times without a completion between; the last time: {cause}\n"
                "What is stored stays; the same command goes on from there."
            )
        say(
            f"Ray: an engine or its node has died ({escape(cause)}); what was under way, {len(self._open)} request(s), is "
            f"generated again (attempt {self._failures} of {_STARTS_AGAIN})"
        )
        self._cluster.settle()
        self.pipeline = self._start(again=True)
        self._submit(list(self._open.values()))

    def _forget(self, numbers: Iterable[int]) -> None:
        """Forgets work that nobody waits for any more: Ray takes none back, so it is done and thrown away."""
        for number in numbers:
            self._arrived.pop(number, None)
            self._open.pop(number, None)


def _arguments(
    folder: Path, engine: EngineConfig, precision: str, device: str, trust_remote_code: bool, max_length: int
) -> dict[str, Any]:
    """Returns the arguments of vLLM's `EngineArgs`."""
    arguments = engine_arguments(folder.resolve(), engine, precision, trust_remote_code) | {"max_model_len": max_length}
    del arguments["scheduling_policy"]  # ray.data.llm gives requests no priority
    if device == "cpu":
        arguments["logits_processors"] = ["dgr_lightning.engines.vllm.noise:RequestNoise"]
    return arguments


def _positions(folder: Path, trust_remote_code: bool) -> int:
    """Returns how many positions a model has."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).get_text_config()
    return int(config.max_position_embeddings)


def _cause(error: Exception) -> str:
    """Returns the error that Ray reports, without the way that it took through Ray's processes."""
    text = str(error)
    named = list(re.finditer(r"^\s*(?:\w+\.)*(?=\w+(?:Error|Exception)\b: )", text, flags=re.MULTILINE))
    return " ".join((text[named[-1].end() :] if named else f"{type(error).__name__}: {text}").split())[:600]
