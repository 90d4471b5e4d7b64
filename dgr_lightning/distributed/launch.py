"""Runs a stage in child processes: one, or a rank per device.

The process that parsed the command line is never a rank. It passes the resolved config on, and ranks parse no command line, so
that the points of a sweep stay apart and all ranks train the same. Ranks run under torch's elastic agent, which torchrun is
built on, and the GPU memory of a stage is free when its processes have ended. If torchrun itself started this program on
several machines, `multi_node` runs the ranks.

    parent (the command line, the order of the stages)
      └─ ranks of a stage          die with their parent; an exception of a rank is raised in the parent
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from uuid import uuid4

from dgr_lightning.console import console, say
from dgr_lightning.errors import UserError
from dgr_lightning.models.hub import SETTLED
from dgr_lightning.processes import Terminated, die_with_parent, handlers_kept, stop_once
from dgr_lightning.writing import CannotWrite, cannot_write, writing

T = TypeVar("T")

# Messages of a rank that lost another one: a consequence, not the reason of a failure.
_LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL communicator was aborted")

_REPORTED_CHARACTERS = 15_000  # of a rank's traceback: its end, which is what counts


class RankFailed(RuntimeError):
    """A rank raised an exception, whose traceback is in the message, or died."""


@dataclass(frozen=True)
class RankCall:
    """A function for a rank to call.

    Attributes:
        function: takes no arguments.
        folder: where the rank leaves what the function returned or raised.
        parent: process id of the parent.
        num_threads: threads that torch computes with; None: torch's default.
    """

    function: Callable[[], Any]
    folder: Path
    parent: int
    num_threads: int | None


@dataclass(frozen=True)
class Failure:
    """The exception that ended a rank.

    Attributes:
        rank: its number.
        kind: `user` (a UserError), `unwritten` (a full disk or its like), `lost` (another rank died) or `error` (any other
            exception).
        message: the message of a `user` or `unwritten` one, else the traceback.
    """

    rank: int
    kind: str
    message: str

    def reraise(self) -> NoReturn:
        """Raises the rank's exception in the parent."""
        raise {"user": UserError, "unwritten": CannotWrite}.get(self.kind, RankFailed)(self.message)


def run_ranks(function: Callable[[], T], num_ranks: int, *, max_restarts: int = 0, num_threads: int | None = None) -> T:
    """Calls a function in several child processes at once, and returns what the first rank returned.

    Args:
        function: a function of a module, or a `functools.partial` of one; it and its result are pickled.
        num_ranks: number of processes.
        max_restarts: how often all ranks are started again after one of them died (killed, out of memory, a lost device). An
            exception is never retried, since it would be raised again.
        num_threads: threads that torch computes with in each rank; None: torch's default.

    Raises:
        UserError: a rank raised one.
        CannotWrite: a rank had no room for what it wrote.
        RankFailed: a rank raised another exception, or died more than `max_restarts` times.
        KeyboardInterrupt: the user stopped the run.
    """
    for restarts_left in range(max_restarts, -1, -1):
        with report_folder(*range(num_ranks)) as folder:
            died = _attempt(RankCall(function, folder, os.getpid(), num_threads), num_ranks)
            if died is None:
                value: T = result_of(folder)
                return value
        if restarts_left:
            say(f"[yellow]{died}: restarting all ranks, {restarts_left} restarts left[/]")
    raise RankFailed(f"{died}; trainer.max_restarts={max_restarts}")


@contextmanager
def report_folder(*ranks: int) -> Iterator[Path]:
    """A folder for what ranks return or raise, with room set aside: one that fails since the disk is full still says so."""
    with tempfile.TemporaryDirectory(prefix="dgr-ranks-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with writing(folder):
            for rank in ranks:
                (folder / f"room-{rank}").write_bytes(bytes(4 * _REPORTED_CHARACTERS + 1024))
        yield folder


def run_rank(call: RankCall) -> None:
    """Calls the function of a rank, in its process, and leaves the result or the failure in a folder for the parent."""
    die_with_parent(call.parent)
    stop_once()
    os.environ[SETTLED] = "1"
    import torch

    from dgr_lightning.distributed.ranks import destroy_group

    rank = int(os.environ["RANK"])
    console.quiet = console.quiet or rank > 0
    if call.num_threads is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(call.num_threads)
    try:
        result = call.function()
        if rank == 0:
            with writing(call.folder):
                (call.folder / "result").write_bytes(pickle.dumps(result))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # torch's CheckpointException is not an Exception
        _report(call.folder, _failure(rank, error))
        raise SystemExit(1) from None
    destroy_group()


def result_of(folder: Path) -> Any:
    """Returns the result that the first rank left."""
    return pickle.loads((folder / "result").read_bytes())


def failures_in(folder: Path) -> list[Failure]:
    """Returns the failures of this machine's ranks in the order of time; those that lost another rank come last."""
    files = sorted(folder.glob("failure-*"), key=lambda file: file.stat().st_mtime_ns)
    failures: list[Failure] = [pickle.loads(file.read_bytes()) for file in files]
    return sorted(failures, key=lambda failure: failure.kind == "lost")


def _report(folder: Path, failure: Failure) -> None:
    room = folder / f"room-{failure.rank}"
    with open(room, "r+b") as file:
        file.write(pickle.dumps(replace(failure, message=failure.message[-_REPORTED_CHARACTERS:])))
        file.truncate()
    room.replace(folder / f"failure-{failure.rank}")


def _failure(rank: int, error: BaseException) -> Failure:
    if isinstance(error, UserError):
        return Failure(rank, "user", str(error))
    if unwritten := cannot_write(error):
        return Failure(rank, "unwritten", str(unwritten))
    from torch.distributed import DistError

    lost = isinstance(error, DistError) or any(words in str(error) for words in _LOST_PEER)
    return Failure(rank, "lost" if lost else "error", f"rank {rank}: {traceback.format_exc()}")


def _attempt(call: RankCall, num_ranks: int) -> str | None:
    """Runs all ranks to their end; returns None if all succeeded, or a sentence about one that died."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_ranks,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,  # run_ranks restarts, which tells an exception from a death
    )
    # Their reports are replaced by one sentence.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed.elastic", "torch.multiprocessing.spawn")):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with handlers_kept(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            elastic_launch(config, run_rank)(call)
    except ChildFailedError as error:
        failures = failures_in(call.folder)
        if failures and failures[0].kind != "lost":
            failures[0].reraise()
        dead = [(rank, failure.exitcode) for rank, failure in error.failures.items() if not _was_stopped(failure.exitcode)]
        rank, exitcode = min(dead, key=lambda one: one[1], default=(error.get_first_failure()[0], 1))
        return f"rank {rank} of {num_ranks} died ({describe_exit(exitcode)})"
    except SignalException as error:
        for child in multiprocessing.active_children():
            child.kill()  # a second signal has cut short the agent's waiting for them
        if error.sigval in (signal.SIGINT, signal.SIGTERM):
            raise (KeyboardInterrupt if error.sigval == signal.SIGINT else Terminated) from None
        raise SystemExit(128 + error.sigval) from None
    return None


def _was_stopped(exitcode: int) -> bool:
    """Whether the agent stopped a rank because another one failed."""
    return exitcode == -signal.SIGTERM


def describe_exit(exitcode: int) -> str:
    """Returns how a process ended: SIGKILL, or exit code 1."""
    return signal.Signals(-exitcode).name if exitcode < 0 else f"exit code {exitcode}"
