"""Jobs: generators that ask for completions, of which the missing ones are generated and stored as they finish.

A job yields the completions that it needs, is resumed when all of them are in the store, and may then ask for more: an answer
that shows the trace, another try after a bad one. Jobs are started as the engine has room, so that any number of them takes the
memory of those that are running, and a job's next request joins the batch that is being decoded instead of waiting for another
one.

A store's shards are claimed when their jobs first need them. Where another process has claimed a shard, its jobs are left for
the end, and mostly done by then: several processes on one file system, each with its own run directory, share the work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic

from dgr_lightning.console import Advance, progress, say
from dgr_lightning.engines.engine import Completion, Engine, Request, Sampling
from dgr_lightning.generation.completions import CompletionStore, StoredCompletion
from dgr_lightning.generation.shard_claims import ShardClaims
from dgr_lightning.generation.shards import NUM_SHARDS, ShardedRows, shard_of
from dgr_lightning.models.scored_pairs import Pair

# Pairs that are scored in one call while generation goes on: enough to fill a batch.
_SCORED_AT_ONCE = 64


@dataclass(frozen=True)
class StoredRequest:
    """A completion that a job needs.

    Attributes:
        store: where it is kept.
        key: what it is stored under; the text before the first slash is the job's name.
        noise_key: fixes its sampling noise, together with the stage's seed; unique like the key.
        prompt_ids: makes the prompt; called only where the completion is missing.
    """

    store: CompletionStore
    key: str
    noise_key: str
    prompt_ids: Callable[[], Sequence[int]]


Needs = list[StoredRequest] | list[Pair]
"""A request of a job: completions that it needs, or pairs to be scored."""

Job = Generator[Needs, list[list[float]], None]
"""Is resumed when its completions are stored, or is sent the scores of its pairs."""


@dataclass(frozen=True)
class Jobs:
    """Jobs to be run, and where they keep their results.

    Attributes:
        names: unique; the keys of a job's completions begin with its name and a slash.
        start: starts the job with a given index into `names`.
        stores: hold the jobs' completions; their headers have to cover everything that sampling depends on.
        side_rows: rows of the same keys that the jobs themselves claim and write; released together with the stores.
    """

    names: Sequence[str]
    start: Callable[[int], Job]
    stores: Sequence[CompletionStore]
    side_rows: Sequence[ShardedRows] = ()

    def __post_init__(self) -> None:
        """Raises ValueError where two jobs have the same name."""
        if len(set(self.names)) < len(self.names):
            raise ValueError("two jobs with the same name")


def run_jobs(jobs: Jobs, engine: Callable[[], Engine], sampling: Sampling, label: str) -> int:
    """Runs every job to its end; returns how many completions were generated.

    Args:
        jobs: what to run.
        engine: returns the engine; called only where something is missing.
        sampling: how to generate what is missing.
        label: of the progress bar.
    """
    with progress(label, total=len(jobs.names)) as advance:
        scheduler = _Scheduler(jobs, engine, sampling, advance)
        scheduler.run()
    return scheduler.throughput.num_completions


def generate_stored(
    engine: Callable[[], Engine],
    requests: Sequence[Request],
    sampling: Sampling,
    store: CompletionStore,
    label: str,
) -> None:
    """Generates the completions that a store lacks, each under its request's key.

    Args:
        engine: returns the engine; called only where something is missing.
        requests: keys are unique.
        sampling: how to generate what is missing; the store's header has to cover it.
        store: where completions are kept.
        label: of the progress bar.

    Raises:
        ValueError: two requests have the same key.
    """

    def single(index: int) -> Job:
        request = requests[index]
        yield [StoredRequest(store, request.key, request.key, lambda: request.prompt_ids)]

    run_jobs(Jobs([request.key for request in requests], single, [store]), engine, sampling, label)


@dataclass
class _Running:
    """A job that was started: its generator, its shard, and the completions that it waits for."""

    job: Job
    shard: int
    missing: list[StoredRequest] = field(default_factory=list)


@dataclass
class _Throughput:
    """Counts what was generated."""

    num_completions: int = 0
    num_tokens: int = 0
    _begun: float | None = None

    def start(self) -> None:
        """Starts the clock, the first time."""
        self._begun = monotonic() if self._begun is None else self._begun

    def add(self, completion: Completion) -> None:
        """Counts a completion."""
        self.num_completions += 1
        self.num_tokens += len(completion.token_ids)

    def __str__(self) -> str:
        """Returns the note at the end of the progress bar."""
        assert self._begun is not None
        rate = self.num_tokens / max(monotonic() - self._begun, 1e-9)
        return f"{self.num_completions:,} completions generated, {rate:,.0f} tokens/s"


class _Scheduler:
    """Runs jobs: resumes each as far as it gets, and generates and scores what the others wait for.

    Attributes:
        throughput: what was generated so far.
    """

    def __init__(self, jobs: Jobs, engine: Callable[[], Engine], sampling: Sampling, advance: Advance) -> None:
        self._jobs, self._engine, self._sampling, self._advance = jobs, engine, sampling, advance
        self._claims = ShardClaims(jobs.stores, jobs.side_rows)
        self.throughput = _Throughput()
        # Where a started job waits: for the engine to take its request, for a completion, for scores, for another process.
        self._ready: deque[tuple[_Running, StoredRequest]] = deque()
        self._in_flight: dict[str, tuple[_Running, StoredRequest]] = {}
        self._to_score: list[tuple[_Running, list[Pair]]] = []
        self._left_to_others: list[_Running] = []
        # The engine has asked for a request, and only the next completion or score can bring one.
        self._starved = False

    def run(self) -> None:
        """Runs all jobs: first those whose shards can be claimed, then what another process has left of the others."""
        self._run(self._start_jobs())
        if self._left_to_others:
            say("Another process is generating the rest of the same completions; waiting for it.")
            # In the order of the shards, so that two processes that wait never wait for each other.
            left, self._left_to_others = sorted(self._left_to_others, key=lambda running: running.shard), []
            for running in left:
                self._claims.retain(running.shard)
            self._run(self._resume_jobs(left))

    def _run(self, starts: Iterator[bool]) -> None:
        """Runs jobs until none is left.

        Args:
            starts: starts or resumes one more job at each step and yields True, or yields False where none can be now.
        """
        more = True
        while more or self._ready or self._to_score:
            if self._ready:
                self.throughput.start()
                for completion in self._engine().generate(self._requests(starts), self._sampling):
                    self._store(completion)
                    if self._to_score and (self._starved or len(self._to_score) >= _SCORED_AT_ONCE):
                        self._score()
                assert not self._in_flight, "the engine left requests unanswered"
            elif more:
                # No engine is started before something is known to be missing.
                more = next(starts, None) is not None
            else:
                self._score()

    def _requests(self, starts: Iterator[bool]) -> Iterator[Request | None]:
        """Yields the missing completions as the engine takes them; ends when no job is left and no completion is in flight."""
        while True:
            self._starved = False
            if self._ready:
                running, request = self._ready.popleft()
                self._in_flight[request.noise_key] = running, request
                yield Request(request.noise_key, request.prompt_ids())
            elif (started := next(starts, None)) is not True:
                if started is None and not self._in_flight:
                    return
                self._starved = True
                yield None

    def _start_jobs(self) -> Iterator[bool]:
        """Starts the jobs shard by shard, one at each step."""
        by_shard: list[list[int]] = [[] for _ in range(NUM_SHARDS)]
        for index, name in enumerate(self._jobs.names):
            by_shard[shard_of(name)].append(index)
        for shard, indices in enumerate(by_shard):
            # Once more than there are jobs, so that the shard is kept until the last of them has started.
            for _ in range(len(indices) + 1):
                self._claims.retain(shard)
            for index in indices:
                self._resume(_Running(self._jobs.start(index), shard))
                yield True
            self._claims.release(shard)

    def _resume_jobs(self, left: Sequence[_Running]) -> Iterator[bool]:
        """Resumes jobs whose shards another process had claimed, one at each step."""
        for running in left:
            # While anything is in flight, generation goes on; only an idle process waits for the claim.
            while not self._claims.claim(running.shard, wait=not self._in_flight):
                yield False
            if not self._wait_for(running, running.missing):
                self._resume(running)
            yield True

    def _resume(self, running: _Running, scores: list[list[float]] | None = None) -> None:
        """Runs a job until it needs something that is missing, or ends."""
        while True:
            try:
                needs = next(running.job) if scores is None else running.job.send(scores)
            except StopIteration:
                self._advance(1, str(self.throughput) if self.throughput.num_completions else None)
                self._claims.release(running.shard)
                return
            scores = None
            pairs = [pair for pair in needs if isinstance(pair, tuple)]
            if pairs:
                self._to_score.append((running, pairs))
                return
            if self._wait_for(running, [request for request in needs if isinstance(request, StoredRequest)]):
                return

    def _wait_for(self, running: _Running, requests: list[StoredRequest]) -> bool:
        """Makes a job wait for those completions that are missing; returns False where none is."""
        running.missing = [request for request in requests if request.key not in request.store]
        if not running.missing:
            return False
        if not self._claims.claim(running.shard, wait=False):
            self._left_to_others.append(running)
            self._claims.release(running.shard)
            return True
        # A shard that was claimed only now may hold what another process has stored meanwhile.
        running.missing = [request for request in requests if request.key not in request.store]
        self._ready.extend((running, request) for request in running.missing)
        return bool(running.missing)

    def _store(self, completion: Completion) -> None:
        """Stores a completion, and resumes its job if it waited for no other."""
        running, request = self._in_flight.pop(completion.key)
        stored = StoredCompletion(completion.text, len(completion.token_ids), completion.finish_reason)
        request.store.append(request.key, stored)
        self.throughput.add(completion)
        running.missing.remove(request)
        if not running.missing:
            self._resume(running)

    def _score(self) -> None:
        """Scores the pairs that jobs have yielded, and resumes those jobs."""
        waiting, self._to_score = self._to_score, []
        scores = iter(self._engine().score([pair for _, pairs in waiting for pair in pairs]))
        for running, pairs in waiting:
            self._resume(running, [next(scores) for _ in pairs])
