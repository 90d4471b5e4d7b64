"""From what is wanted to what is stored: completions that are missing are generated, each is stored as it finishes.

A job is a generator that asks for completions, is resumed when all of them are in the store, and may then ask for more: an
answer that shows the trace, another try after a bad one. Jobs are started as the engine has room, so that any number of them
costs the memory of those under way, and a job's next request joins the running batch instead of waiting for a next one.

A store's shards are claimed as their jobs come up. Where another process works on a shard, its jobs are left for the end, and
mostly done by then: several processes on one file system, each with a run directory of its own, share the work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic

from dgr_lightning.console import Advance, progress, say
from dgr_lightning.engines.engine import Completion, Engine, Request, Sampling
from dgr_lightning.generation.completions import CompletionStore, StoredCompletion
from dgr_lightning.generation.shards import NUM_SHARDS, ShardedRows, shard_of
from dgr_lightning.models.pairs import Pair

# Pairs that are scored in one call while generation goes on: enough to fill a batch.
_SCORED_AT_ONCE = 64


@dataclass(frozen=True)
class Wanted:
    """A completion that a job asks for.

    Attributes:
        store: where it is kept.
        key: what it is stored under; what comes before the first slash is the job's name.
        noise: what its sampling noise follows from, with the stage's seed; unique like the key.
        prompt_ids: makes the prompt; called only where the completion is missing.
    """

    store: CompletionStore
    key: str
    noise: str
    prompt_ids: Callable[[], Sequence[int]]


Asked = list[Wanted] | list[Pair]
Job = Generator[Asked, list[list[float]], None]
"""Yields completions that it wants, or pairs to be scored, and is sent the scores of the latter."""


def run_jobs(
    names: Sequence[str],
    start: Callable[[int], Job],
    engine: Callable[[], Engine],
    sampling: Sampling,
    stores: Sequence[CompletionStore],
    label: str,
    beside: Sequence[ShardedRows] = (),
) -> int:
    """Runs every job to its end; returns how many completions were generated for it.

    Args:
        names: of the jobs, unique; the keys that a job asks for begin with its name and a slash.
        start: starts the job of an index into `names`.
        engine: gives the engine; called only where something is missing.
        sampling: how to generate what is missing; the stores' headers have to cover it.
        stores: where completions are kept; released again as their shards are done.
        label: what the progress bar says.
        beside: rows of the same keys that jobs write themselves; released with the stores.

    Raises:
        ValueError: two jobs have the same name.
    """
    if len(set(names)) < len(names):
        raise ValueError("two jobs with the same name")
    with progress(label, total=len(names)) as advance:
        # Everybody claims them in one order, so that no two processes wait for each other.
        stores = sorted(stores, key=lambda store: store.folder)
        runner = _Runner(names, start, engine, sampling, stores, beside, advance)
        runner.run()
    return runner.num_generated


def generate_stored(
    engine: Callable[[], Engine],
    requests: Sequence[Request],
    sampling: Sampling,
    store: CompletionStore,
    label: str,
) -> None:
    """Sees to it that the completion of every request is in the store, under the request's key.

    Args:
        engine: gives the engine; called only where something is missing.
        requests: keys are unique.
        sampling: how to generate what is missing; the store's header has to cover it.
        store: where completions are kept.
        label: what the progress bar says.

    Raises:
        ValueError: two requests with the same key.
    """

    def single(index: int) -> Job:
        request = requests[index]
        yield [Wanted(store, request.key, request.key, lambda: request.prompt_ids)]

    run_jobs([request.key for request in requests], single, engine, sampling, [store], label)


@dataclass
class _Running:
    """A job that has begun: its generator, its shard, and the completions that it waits for."""

    job: Job
    shard: int
    missing: list[Wanted] = field(default_factory=list)


@dataclass
class _Runner:
    """The state of `run_jobs`."""

    names: Sequence[str]
    start: Callable[[int], Job]
    engine: Callable[[], Engine]
    sampling: Sampling
    stores: Sequence[CompletionStore]
    beside: Sequence[ShardedRows]
    advance: Advance
    num_generated: int = 0
    _num_tokens: int = 0
    _begun: float = 0.0
    _dry: bool = False
    _ready: deque[tuple[_Running, Wanted]] = field(default_factory=deque)
    _under_way: dict[str, tuple[_Running, Wanted]] = field(default_factory=dict)
    _to_score: list[tuple[_Running, list[Pair]]] = field(default_factory=list)
    _elsewhere: list[_Running] = field(default_factory=list)
    _open_jobs: dict[int, int] = field(default_factory=dict)

    def run(self) -> None:
        """Runs all jobs: first those of shards that can be claimed, then what another process has left of the others."""
        self._run(self._started())
        if self._elsewhere:
            say("Another process is generating the rest of the same completions; waiting for it.")
            # In the order of the shards, so that two processes that wait never wait for each other.
            left, self._elsewhere = sorted(self._elsewhere, key=lambda running: running.shard), []
            for running in left:
                self._open_jobs[running.shard] += 1
            self._run(self._taken_up(left))

    def _run(self, jobs: Iterator[bool]) -> None:
        """Runs jobs until none is left; `jobs` begins one more each time it is asked, or says that none can be begun now."""
        more = True
        while more or self._ready or self._to_score:
            if self._ready:
                self._begun = self._begun or monotonic()
                for completion in self.engine().generate(self._feed(jobs), self.sampling):
                    self._take(completion)
                    if self._to_score and (self._dry or len(self._to_score) >= _SCORED_AT_ONCE):
                        self._score()
                assert not self._under_way, "the engine left requests unanswered"
            elif more:
                # No engine is built before something is known to be missing.
                more = next(jobs, None) is not None
            else:
                self._score()

    def _feed(self, jobs: Iterator[bool]) -> Iterator[Request | None]:
        """Yields what is missing as the engine asks for it; ends when nothing is under way and nothing more is to be had."""
        while True:
            self._dry = False
            if self._ready:
                running, wanted = self._ready.popleft()
                self._under_way[wanted.noise] = running, wanted
                yield Request(wanted.noise, wanted.prompt_ids())
            elif (began := next(jobs, None)) is not True:
                if began is None and not self._under_way:
                    return
                self._dry = True
                yield None

    def _started(self) -> Iterator[bool]:
        """Begins the jobs shard by shard, one each time it is asked."""
        by_shard: list[list[int]] = [[] for _ in range(NUM_SHARDS)]
        for index, name in enumerate(self.names):
            by_shard[shard_of(name)].append(index)
        for shard, indices in enumerate(by_shard):
            # One more, so that a shard stays open until its last job has begun.
            self._open_jobs[shard] = len(indices) + 1
            for index in indices:
                self._go_on(_Running(self.start(index), shard))
                yield True
            self._close_job(shard)

    def _taken_up(self, left: Sequence[_Running]) -> Iterator[bool]:
        """Goes on with jobs whose shards another process had, one each time it is asked."""
        for running in left:
            # What is under way goes on; only who has nothing else to do waits.
            while not self._claim(running.shard, wait=not self._under_way):
                yield False
            if not self._wait_for(running, running.missing):
                self._go_on(running)
            yield True

    def _go_on(self, running: _Running, scores: list[list[float]] | None = None) -> None:
        """Lets a job run until it needs something that is not there."""
        while True:
            try:
                asked = next(running.job) if scores is None else running.job.send(scores)
            except StopIteration:
                self.advance(1, self._note())
                self._close_job(running.shard)
                return
            scores = None
            pairs = [pair for pair in asked if isinstance(pair, tuple)]
            if pairs:
                self._to_score.append((running, pairs))
                return
            if self._wait_for(running, [wanted for wanted in asked if isinstance(wanted, Wanted)]):
                return

    def _wait_for(self, running: _Running, wanted: list[Wanted]) -> bool:
        """Has a job wait for what is missing of what it wants; returns False where nothing is."""
        running.missing = [one for one in wanted if one.key not in one.store]
        if not running.missing:
            return False
        if not self._claim(running.shard, wait=False):
            self._elsewhere.append(running)
            self._close_job(running.shard)
            return True
        # Claimed only now, it may hold what another process has stored meanwhile.
        running.missing = [one for one in wanted if one.key not in one.store]
        self._ready.extend((running, one) for one in running.missing)
        return bool(running.missing)

    def _take(self, completion: Completion) -> None:
        """Stores a completion, and goes on with its job if it was the last that this waited for."""
        running, wanted = self._under_way.pop(completion.key)
        num_tokens = len(completion.token_ids)
        wanted.store.append(wanted.key, StoredCompletion(completion.text, num_tokens, completion.finish_reason))
        self.num_generated += 1
        self._num_tokens += num_tokens
        running.missing.remove(wanted)
        if not running.missing:
            self._go_on(running)

    def _score(self) -> None:
        """Scores what jobs have asked for, and goes on with them."""
        waiting, self._to_score = self._to_score, []
        scores = iter(self.engine().score([pair for _, pairs in waiting for pair in pairs]))
        for running, pairs in waiting:
            self._go_on(running, [next(scores) for _ in pairs])

    def _claim(self, shard: int, *, wait: bool) -> bool:
        return all(store.claim(shard, wait=wait) for store in self.stores)

    def _close_job(self, shard: int) -> None:
        """Counts down; the last job of a shard gives its lock back."""
        self._open_jobs[shard] -= 1
        if not self._open_jobs[shard]:
            for rows in (*self.stores, *self.beside):
                rows.release(shard)

    def _note(self) -> str | None:
        if not self.num_generated:
            return None
        speed = self._num_tokens / max(monotonic() - self._begun, 1e-9)
        return f"{self.num_generated:,} completions generated, {speed:,.0f} tokens/s"
