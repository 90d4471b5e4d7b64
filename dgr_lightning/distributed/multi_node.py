"""Several machines: torchrun starts this program once for every device, and all but the first are hands of the first.

    torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=<first machine>:29400 \\
        train.py trainer=fsdp-multinode model=r1-distill-7b data=r1act

The first process reads the command line, owns the run directory and knows the order of the stages. The others know nothing of
all that: they wait for work, start it in a process of their own (as the first one does, whose own rank is such a child), and
say how it ended. They hear of it through the store that torchrun keeps for its workers. Run directory and cache must lie on a
disk that all machines see.

What one of them raises ends all; so does a death, and then torchrun's `--max-restarts` has the whole program started again,
which goes on from the last checkpoint.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from dgr_lightning.console import console
from dgr_lightning.distributed import launch, torchrun
from dgr_lightning.distributed.launch import Failure, Work

if TYPE_CHECKING:
    from torch.distributed import Store

T = TypeVar("T")

_POLL_SECONDS = 0.1
_SECONDS_TO_END = 10
# The longest that a hand waits for the first process to come up, which may have a model to fetch.
_TIMEOUT = timedelta(hours=24)


@dataclass(frozen=True)
class _Order:
    """What the first process has the others do.

    Attributes:
        number: counted from 1; the ranks of one do not meet those of another.
        function: for every rank; None ends the waiting.
        alone: whether it is for one process of every machine instead, that is no rank of several.
        num_threads: of each rank.
        code: the exit code with which the waiting ends.
    """

    number: int
    function: Callable[[], Any] | None
    alone: bool = False
    num_threads: int | None = None
    code: int = 0


def run_everywhere(function: Callable[[], T], num_threads: int | None = None) -> T:
    """Calls a function on every rank of the crew, all at once, and returns what the first one returned.

    Args:
        function: as for `launch.run_ranks`.
        num_threads: as for `launch.run_ranks`.

    Raises:
        UserError: a rank raised one.
        RankFailed: a rank raised another exception, or died.
    """
    return _run(function, _Order(next(_orders()), function, num_threads=num_threads))


def run_helped(function: Callable[[], T], helper: Callable[[], Any]) -> T:
    """Calls a function in one process on the first machine, and a helper of it in one on each of the others.

    Each of them has its machine's devices to itself.

    Args:
        function: as for `launch.run_ranks`.
        helper: likewise; what it does must be of use to `function` by itself, through files.

    Raises:
        UserError: as for `run_everywhere`.
        RankFailed: as for `run_everywhere`.
    """
    return _run(function, _Order(next(_orders()), helper, alone=True))


def run_alone(function: Callable[[], T]) -> T:
    """Calls a function in one process on the first machine, while the others wait."""
    with tempfile.TemporaryDirectory(prefix="dgr-ranks-") as folder:
        failure = _work(_Order(0, function, alone=True), Path(folder))
        if failure is not None:
            failure.reraise()
        value: T = launch.result_of(Path(folder))
        return value


def _run(function: Callable[[], T], order: _Order) -> T:
    """Has the others do what the order says while a child of this process calls the function."""
    store = _store()
    _put(f"order/{order.number}", order)
    others = [f"outcome/{order.number}/{rank}" for rank in range(1, int(os.environ["WORLD_SIZE"]))]

    def somebody_failed() -> Failure | None:
        reported: list[Failure | None] = [pickle.loads(store.get(key)) for key in others if store.check([key])]
        return next((failure for failure in reported if failure is not None), None)

    with tempfile.TemporaryDirectory(prefix="dgr-ranks-") as folder:
        own = _work(replace(order, function=function), Path(folder), stop=lambda: somebody_failed() is not None)
        if own is not None and own.kind != "lost":
            own.reraise()
        while (failure := somebody_failed() or own) is None and not store.check(others):
            time.sleep(_POLL_SECONDS)
        if failure is not None:
            failure.reraise()
        value: T = launch.result_of(Path(folder))
        return value


def dismiss(code: int) -> None:
    """Ends the waiting of the others with the exit code of the first: agents of torchrun wait for each other otherwise."""
    number = next(_orders())
    _put(f"order/{number}", _Order(number, None, code=code))


def follow() -> int:
    """Waits for work and does it until there is no more; returns the exit code. For every process but the first."""
    store, orders, rank = _store(), _orders(), os.environ["RANK"]
    while True:
        key = f"order/{next(orders)}"
        _wait_for(store, key)
        order: _Order = pickle.loads(store.get(key))
        if order.function is None:
            return order.code
        failure = None
        if not order.alone or os.environ["LOCAL_RANK"] == "0":
            with tempfile.TemporaryDirectory(prefix="dgr-ranks-") as folder:
                failure = _work(order, Path(folder))
        _put(f"outcome/{order.number}/{rank}", failure)
        if failure is not None:
            return 1


def _work(order: _Order, folder: Path, stop: Callable[[], bool] | None = None) -> Failure | None:
    """Does the work in a child process, and waits for it. Returns what went wrong.

    Args:
        order: what is to be done.
        folder: where the child leaves the outcome.
        stop: asked now and then whether the child is to be ended, because of a process elsewhere.
    """
    assert order.function is not None
    work = Work(order.function, folder, os.getpid(), order.num_threads)
    child = multiprocessing.get_context("spawn").Process(
        target=_child, args=(work, f"{_corner()}/stage-{order.number}", order.alone)
    )
    child.start()
    while child.is_alive():
        child.join(_POLL_SECONDS)
        if stop is not None and stop():
            child.terminate()
            child.join(_SECONDS_TO_END)
            child.kill()  # it may wait for a device, in which no signal reaches it
            child.join()
    failures = launch.failures_in(folder)
    if failures:
        return failures[0]
    if child.exitcode:
        rank = int(os.environ["RANK"])
        return Failure(rank, "lost", f"rank {rank} died ({launch.how(child.exitcode)})")
    return None


def _child(work: Work, stage: str, alone: bool) -> None:
    if alone:
        console.quiet = not torchrun.is_first()
        for name in torchrun.VARIABLES:
            os.environ.pop(name, None)
        os.environ["RANK"] = "0"
    else:
        os.environ[torchrun.STAGE] = stage
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # where the agents keep none, the first process does, and no rank
        if os.environ["LOCAL_WORLD_SIZE"] != "1" and os.environ.get("OMP_NUM_THREADS") == "1":
            del os.environ["OMP_NUM_THREADS"]  # torchrun's own, whatever the machine has
    launch.do_work(work)


@cache
def _store() -> Store:
    """The store of torchrun's workers, in the corner of this attempt."""
    from torch.distributed import PrefixStore

    return PrefixStore(_corner(), torchrun.agent_store(_TIMEOUT))


@cache
def _corner() -> str:
    """Returns a name that the processes of this attempt have in common, and those of an attempt before a restart had not.

    torchrun's store outlives restarts, and its count of them differs from machine to machine. But nobody of an earlier attempt
    is alive any more: so the first process forgets all greetings that it finds, and answers those that come again.
    """
    from torch.distributed import PrefixStore

    store, own = PrefixStore("dgr", torchrun.agent_store(_TIMEOUT)), uuid4().hex
    if torchrun.is_first():
        greetings = [f"greeting/{rank}" for rank in range(1, int(os.environ["WORLD_SIZE"]))]
        for greeting in greetings:
            store.delete_key(greeting)
        for greeting in greetings:
            _wait_for(store, greeting)
            store.set(f"answer/{store.get(greeting).decode()}", own)
        return f"dgr/{own}"
    greeting, answer = f"greeting/{os.environ['RANK']}", f"answer/{own}"
    while not store.check([answer]):
        if not store.check([greeting]):
            store.set(greeting, own)
        time.sleep(_POLL_SECONDS)
    return f"dgr/{store.get(answer).decode()}"


def _wait_for(store: Store, key: str) -> None:
    while not store.check([key]):
        time.sleep(_POLL_SECONDS)


def _put(key: str, value: Any) -> None:
    _store().set(key, pickle.dumps(value))  # type: ignore[arg-type]  # bytes are taken, whatever the stub says


@cache
def _orders() -> Iterator[int]:
    return count(1)
