"""Several machines: torchrun starts this program once per device; the first process is the driver, all others are its workers.

    torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=<first machine>:29400 \\
        train.py trainer=fsdp-multinode model=r1-distill-7b data=r1act

The driver reads the command line, owns the run directory and knows the order of the stages. Workers know none of that: they
wait for jobs, run each in a child process (as the driver does, whose own rank is a child, too), and report how it ended. Jobs
and reports go through the store that torchrun keeps for its workers. Run directory, cache and model must lie on a disk that all
machines see (`shared_folders.py`).

An exception on any rank ends all processes. So does the death of one, and then torchrun's `--max-restarts` starts the whole
program again, which resumes from the latest checkpoint.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from dgr_lightning.console import console
from dgr_lightning.distributed import launch, torchrun
from dgr_lightning.distributed.launch import Failure, RankCall

if TYPE_CHECKING:
    from torch.distributed import Store

T = TypeVar("T")

_POLL_SECONDS = 0.1
_SECONDS_TO_END = 10
# The longest that a worker waits for the driver to start, which may have a model to download first.
_TIMEOUT = timedelta(hours=24)


@dataclass(frozen=True)
class _Job:
    """A job that the driver gives to the workers.

    Attributes:
        number: counted from 1; the ranks of each job rendezvous under a namespace of their own.
        function: what to call; None ends the worker.
        per_machine: whether one process per machine calls it, outside any process group, instead of every rank.
        num_threads: of each rank.
        code: the exit code of a worker that ends.
    """

    number: int
    function: Callable[[], Any] | None
    per_machine: bool = False
    num_threads: int | None = None
    code: int = 0


# --- Driver ---------------------------------------------------------------------------------------------------------------


def run_on_all_ranks(function: Callable[[], T], num_threads: int | None = None) -> T:
    """Calls a function on every rank of all machines at once, and returns what the first rank returned.

    Args:
        function: as for `launch.run_ranks`.
        num_threads: as for `launch.run_ranks`.

    Raises:
        UserError: a rank raised one.
        RankFailed: a rank raised another exception, or died.
    """
    return _run(function, _Job(next(_job_numbers()), function, num_threads=num_threads))


def run_on_every_machine(function: Callable[[], T], elsewhere: Callable[[], Any]) -> T:
    """Calls a function in one process of the first machine, and another in one process of each of the other machines.

    Each of these processes has the devices of its machine to itself.

    Args:
        function: as for `launch.run_ranks`; its result is returned.
        elsewhere: likewise; its result is discarded, so it helps `function` through files alone.

    Raises:
        UserError: as for `run_on_all_ranks`.
        RankFailed: as for `run_on_all_ranks`.
    """
    return _run(function, _Job(next(_job_numbers()), elsewhere, per_machine=True))


def run_elsewhere(function: Callable[[], Any]) -> None:
    """Calls a function in one process of each machine but the first, where `torchrun.NODE` says which it is.

    Args:
        function: as for `launch.run_ranks`; its result is discarded.

    Raises:
        UserError: as for `run_on_all_ranks`.
        RankFailed: as for `run_on_all_ranks`.
    """
    job = _Job(next(_job_numbers()), function, per_machine=True)
    _put(f"job/{job.number}", job)
    _wait_for_workers(job, None)


def run_on_driver(function: Callable[[], T]) -> T:
    """Calls a function in one child process of the driver, while the workers wait."""
    with _report_folder() as folder:
        failure = _run_child(_Job(0, function, per_machine=True), folder)
        if failure is not None:
            failure.reraise()
        value: T = launch.result_of(folder)
        return value


def stop_workers(code: int) -> None:
    """Ends the workers with the driver's exit code; torchrun's agents would wait for each other otherwise."""
    number = next(_job_numbers())
    _put(f"job/{number}", _Job(number, None, code=code))


def _run(function: Callable[[], T], job: _Job) -> T:
    """Publishes a job for the workers, and calls the function in a child process of the driver meanwhile."""
    _put(f"job/{job.number}", job)
    with _report_folder() as folder:
        own = _run_child(replace(job, function=function), folder, stop=lambda: _first_failure(job) is not None)
        if own is not None and own.kind != "lost":
            own.reraise()
        _wait_for_workers(job, own)
        value: T = launch.result_of(folder)
        return value


def _wait_for_workers(job: _Job, own: Failure | None) -> None:
    """Waits until all workers have reported how a job ended, and raises the first failure, the driver's own one last."""
    while (failure := _first_failure(job) or own) is None and not _store().check(_report_keys(job)):
        time.sleep(_POLL_SECONDS)
    if failure is not None:
        failure.reraise()


def _first_failure(job: _Job) -> Failure | None:
    """Returns the failure of the first worker that has reported one so far."""
    store = _store()
    reported: list[Failure | None] = [pickle.loads(store.get(key)) for key in _report_keys(job) if store.check([key])]
    return next((failure for failure in reported if failure is not None), None)


def _report_keys(job: _Job) -> list[str]:
    return [f"report/{job.number}/{rank}" for rank in range(1, int(os.environ["WORLD_SIZE"]))]


# --- Workers --------------------------------------------------------------------------------------------------------------


def serve() -> int:
    """Runs the driver's jobs until there are no more, and returns its exit code; for every process but the driver.

    After a mistake of the user, too: the driver reads of it and ends everybody, so that all machines end alike. Any other
    failure ends this process at once, by which torchrun's agents know of it before the driver's own ranks do.
    """
    store, numbers, rank = _store(), _job_numbers(), os.environ["RANK"]
    while True:
        key = f"job/{next(numbers)}"
        _wait_for(store, key)
        job: _Job = pickle.loads(store.get(key))
        if job.function is None:
            return job.code
        failure = None
        if not job.per_machine or os.environ["LOCAL_RANK"] == "0":
            with _report_folder() as folder:
                failure = _run_child(job, folder)
        _put(f"report/{job.number}/{rank}", failure)
        if failure is not None and failure.kind != "user":
            return 1


# --- A job in a child process ---------------------------------------------------------------------------------------------


def _run_child(job: _Job, folder: Path, stop: Callable[[], bool] | None = None) -> Failure | None:
    """Runs a job in a child process and waits for it; returns its failure, if any.

    Args:
        job: with a function.
        folder: where the child leaves its result or its failure.
        stop: polled; True kills the child, because another process has failed.
    """
    assert job.function is not None
    call = RankCall(job.function, folder, os.getpid(), job.num_threads)
    namespace = f"{_namespace()}/job-{job.number}"
    child = multiprocessing.get_context("spawn").Process(target=_child, args=(call, namespace, job.per_machine))
    child.start()
    try:
        while child.is_alive():
            child.join(_POLL_SECONDS)
            if stop is not None and stop():
                child.terminate()
                child.join(_SECONDS_TO_END)
                child.kill()  # SIGTERM does not reach a process that waits for a device
                child.join()
    except BaseException:  # this process is stopped
        child.kill()
        child.join()
        raise
    failures = launch.failures_in(folder)
    if failures:
        return failures[0]
    if child.exitcode:
        rank = int(os.environ["RANK"])
        return Failure(rank, "lost", f"rank {rank} died ({launch.describe_exit(child.exitcode)})")
    return None


def _report_folder() -> AbstractContextManager[Path]:
    return launch.report_folder(0, int(os.environ["RANK"]))  # a child that is alone on its machine calls itself rank 0


def _child(call: RankCall, namespace: str, per_machine: bool) -> None:
    if os.environ["LOCAL_WORLD_SIZE"] != "1" and os.environ.get("OMP_NUM_THREADS") == "1":
        del os.environ["OMP_NUM_THREADS"]  # set by torchrun, whatever the machine has
    if per_machine:
        console.quiet = not torchrun.is_first()
        os.environ[torchrun.NODE] = os.environ["GROUP_RANK"]
        for name in torchrun.VARIABLES:
            os.environ.pop(name, None)
        os.environ["RANK"] = "0"
    else:
        os.environ[torchrun.NAMESPACE] = namespace
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # if no agent keeps a store, the driver does, and never a rank
    launch.run_rank(call)


# --- The store ------------------------------------------------------------------------------------------------------------


@cache
def _store() -> Store:
    """Returns the store of torchrun's workers, in the namespace of this attempt."""
    from torch.distributed import PrefixStore

    return PrefixStore(_namespace(), torchrun.agent_store(_TIMEOUT))


@cache
def _namespace() -> str:
    """Returns a name that the processes of this attempt agree on, and that differs after each of torchrun's restarts.

    torchrun's store outlives restarts, and its count of them differs from machine to machine. So every worker says hello under
    an id of its own until the driver answers that id. No process of an earlier attempt is alive, so the driver deletes the
    hellos that it finds, and answers those that are repeated.
    """
    from torch.distributed import PrefixStore

    store, own = PrefixStore("dgr", torchrun.agent_store(_TIMEOUT)), uuid4().hex
    if torchrun.is_first():
        hellos = [f"hello/{rank}" for rank in range(1, int(os.environ["WORLD_SIZE"]))]
        for hello in hellos:
            store.delete_key(hello)
        for hello in hellos:
            _wait_for(store, hello)
            store.set(f"answer/{store.get(hello).decode()}", own)
        return f"dgr/{own}"
    hello, answer = f"hello/{os.environ['RANK']}", f"answer/{own}"
    while not store.check([answer]):
        if not store.check([hello]):
            store.set(hello, own)
        time.sleep(_POLL_SECONDS)
    return f"dgr/{store.get(answer).decode()}"


def _wait_for(store: Store, key: str) -> None:
    while not store.check([key]):
        time.sleep(_POLL_SECONDS)


def _put(key: str, value: Any) -> None:
    _store().set(key, pickle.dumps(value))  # type: ignore[arg-type]  # bytes are accepted, whatever the stub says


@cache
def _job_numbers() -> Iterator[int]:
    return count(1)
