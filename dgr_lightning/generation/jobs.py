"""Jobs: generators that ask for completions, of which the missing ones are generated and stored as they finish.

A job yields the completions that it needs, is resumed when all of them are in the store, and may then ask for more: an answer
that shows the trace, another try after a bad one. Jobs are started as the engine has room, so that any number of them takes the
memory of those that are running, and a job's next request joins the batch that is being decoded instead of waiting for another
one.

Several sets of jobs run in one stream, one behind the other: the last of a set are decoded beside the first of the next, and no
engine is drained in between. Each set has stores and claims of its own.

A store's shards are claimed when their jobs first need them. Where another process has claimed a shard, its jobs are left for
the end, and mostly done by then: several processes on one file system, each with its own run directory, share the work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
        max_new_tokens: limit of this completion alone; None: that of the sampling.
    """

    store: CompletionStore
    key: str
    noise_key: str
    prompt_ids: Callable[[], Sequence[int]]
    max_new_tokens: int | None = None


Needs = list[StoredRequest] | list[Pair]
"""A request of a job: completions that it needs, or pairs to be scored."""

Job = Generator[Needs, list[list[float]], None]
"""Is resumed when its completions are stored, or is sent the scores of its pairs."""


@dataclass(frozen=True)
class Jobs:
    """A set of jobs to be run, and where they keep their results.

    Attributes:
        names: unique in the set; the keys of a job's completions begin with its name and a slash.
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


def run_jobs(sets: Sequence[Jobs], engine: Callable[[], Engine], sampling: Sampling, label: str) -> int:
    """Runs every job to its end; returns how many completions were generated.

    Args:
        sets: what to run: jobs are started set by set, in this order. No store is in two of them.
        engine: returns the engine; called only where something is missing.
        sampling: how to generate what is missing.
        label: of the progress bar.
    """
    with progress(label, total=sum(len(jobs.names) for jobs in sets)) as advance:
        scheduler = _Scheduler(sets, engine, sampling, advance)
        scheduler.run()
    return scheduler.throughput.num_completions


def generate_stored(
    engine: Callable[[], Engine],
    requests: Sequence[tuple[CompletionStore, Sequence[Request]]],
    sampling: Sampling,
    label: str,
) -> None:
    """Generates the completions that stores lack, each under its request's key, in one stream.

    Args:
        engine: returns the engine; called only where something is missing.
        requests: of each store, in the order in which they are begun; keys are unique in their store.
        sampling: how to generate what is missing; the stores' headers have to cover it.
        label: of the progress bar.

    Raises:
        ValueError: two requests of a store have the same key.
    """
    run_jobs([_single_requests(store, wanted) for store, wanted in requests], engine, sampling, label)


def _single_requests(store: CompletionStore, requests: Sequence[Request]) -> Jobs:
    """Returns the jobs that need one completion each."""

    def single(index: int) -> Job:
        request = requests[index]
        yield [StoredRequest(store, request.key, request.key, lambda: request.prompt_ids)]

    return Jobs([request.key for request in requests], single, [store])


@dataclass
class _Running:
    """A job that was started: its generator, its shard and the claims on that, and the completions that it waits for."""

    job: Job
    claims: ShardClaims
    shard: int
    missing: list[StoredRequest] = field(default_factory=list)

    @property
    def place(self) -> tuple[Path, int]:
        """Where it writes, in an order that all processes share."""
        return self.claims.first_folder, self.shard


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

    def __init__(self, sets: Sequence[Jobs], engine: Callable[[], Engine], sampling: Sampling, advance: Advance) -> None:
        self._sets, self._engine, self._sampling, self._advance = sets, engine, sampling, advance
        self.throughput = _Throughput()
        # Where a started job waits: for the engine to take its request, for a completion, for the completion of another set
        # that has the same key, for scores, for another process.
        self._ready: deque[tuple[_Running, StoredRequest]] = deque()
        self._in_flight: dict[str, tuple[_Running, StoredRequest]] = {}
        self._behind: dict[str, deque[tuple[_Running, StoredRequest]]] = {}
        self._to_score: list[tuple[_Running, list[Pair]]] = []
        self._left_to_others: list[_Running] = []
        # The engine has asked for a request, and only the next completion or score can bring one.
        self._starved = False

    def run(self) -> None:
        """Runs all jobs: first those whose shards can be claimed, then what another process has left of the others."""
        self._run(self._start_jobs())
        if self._left_to_others:
            say("Another process is generating the rest of the same completions; waiting for it.")
            # In the order of folders and shards, so that two processes that wait never wait for each other.
            left, self._left_to_others = sorted(self._left_to_others, key=lambda running: running.place), []
            for running in left:
                running.claims.retain(running.shard)
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
                if request.noise_key in self._in_flight:
                    # Engines know a request by its key, which fixes its noise: the other one's turn is when that is finished.
                    self._behind.setdefault(request.noise_key, deque()).append((running, request))
                    continue
                self._in_flight[request.noise_key] = running, request
                yield Request(request.noise_key, request.prompt_ids(), request.max_new_tokens)
            elif (started := next(starts, None)) is not True:
                if started is None and not self._in_flight:
                    return
                self._starved = True
                yield None

    def _start_jobs(self) -> Iterator[bool]:
        """Starts the jobs set by set and shard by shard, one at each step."""
        for jobs in self._sets:
            claims = ShardClaims(jobs.stores, jobs.side_rows)
            by_shard: list[list[int]] = [[] for _ in range(NUM_SHARDS)]
            for index, name in enumerate(jobs.names):
                by_shard[shard_of(name)].append(index)
            for shard, indices in enumerate(by_shard):
                # Once more than there are jobs, so that the shard is kept until the last of them has started.
                for _ in range(len(indices) + 1):
                    claims.retain(shard)
                for index in indices:
                    self._resume(_Running(jobs.start(index), claims, shard))
                    yield True
                claims.release(shard)

    def _resume_jobs(self, left: Sequence[_Running]) -> Iterator[bool]:
        """Resumes jobs whose shards another process had claimed, one at each step."""
        for running in left:
            # While anything is in flight, generation goes on; only an idle process waits for the claim.
            while not running.claims.claim(running.shard, wait=not self._in_flight):
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
                running.claims.release(running.shard)
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
        if not running.claims.claim(running.shard, wait=False):
            self._left_to_others.append(running)
            running.claims.release(running.shard)
            return True
        # A shard that was claimed only now may hold what another process has stored meanwhile.
        running.missing = [request for request in requests if request.key not in request.store]
        self._ready.extend((running, request) for request in running.missing)
        return bool(running.missing)

    def _store(self, completion: Completion) -> None:
        """Stores a completion, and resumes its job if it waited for no other."""
        running, request = self._in_flight.pop(completion.key)
        if behind := self._behind.get(completion.key):
            self._ready.appendleft(behind.popleft())
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
