"""Starts a stage in processes of its own: one, or a rank for every device.

The process that parsed the command line is never a rank. It knows the resolved config; ranks are given that, not a command line
to parse once more, so that a sweep's points stay apart and every rank trains the same. They run under torch's elastic agent,
what torchrun is made of, and a stage's GPU memory is free again when its processes have ended. Where torchrun itself started
this program on several machines, `crew` has the ranks.

    parent (the command line, the order of the stages)
      └─ ranks of a stage          die with their parent; what one of them raises is raised in the parent
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from uuid import uuid4

from dgr_lightning.console import console, say
from dgr_lightning.distributed.processes import die_with_parent
from dgr_lightning.errors import UserError

T = TypeVar("T")

# What a rank sees of the death of another one: not the reason why the training failed.
_LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL communicator was aborted")


class RankFailed(RuntimeError):
    """A rank raised an exception, whose traceback the message holds, or died."""


@dataclass(frozen=True)
class Work:
    """What a rank is given.

    Attributes:
        function: what it calls.
        folder: where it leaves what that returned, or raised.
        parent: the process that started it.
        num_threads: that torch computes with; None leaves it to torch.
    """

    function: Callable[[], Any]
    folder: Path
    parent: int
    num_threads: int | None


@dataclass(frozen=True)
class Failure:
    """What a rank leaves of the exception that ended it.

    Attributes:
        rank: which one.
        kind: `user` (what a UserError says), `lost` (another rank was gone) or `error` (a traceback).
        message: for the person who started the run.
    """

    rank: int
    kind: str
    message: str

    def reraise(self) -> NoReturn:
        """Raises in the parent what the rank raised."""
        raise (UserError if self.kind == "user" else RankFailed)(self.message)


def run_ranks(function: Callable[[], T], num_ranks: int, *, max_restarts: int = 0, num_threads: int | None = None) -> T:
    """Calls a function in processes of its own, all at once, and returns what the first one returned.

    Args:
        function: a function of a module, or a `functools.partial` of one; it and its result travel as pickles.
        num_ranks: number of processes.
        max_restarts: how often all are started anew because one of them died (killed, out of memory, a lost device). What a
            rank raises would be raised again: it ends the call.
        num_threads: that torch computes with in each of them; None leaves it to torch.

    Raises:
        UserError: a rank raised one.
        RankFailed: a rank raised another exception, or died once too often.
        KeyboardInterrupt: the user stopped the run.
    """
    for restarts_left in range(max_restarts, -1, -1):
        with tempfile.TemporaryDirectory(prefix="dgr-ranks-") as folder:
            died = _attempt(Work(function, Path(folder), os.getpid(), num_threads), num_ranks)
            if died is None:
                value: T = result_of(Path(folder))
                return value
        if restarts_left:
            say(f"[yellow]{died}: all ranks are started again, {restarts_left} restarts left[/]")
    raise RankFailed(f"{died}; trainer.max_restarts={max_restarts}")


def do_work(work: Work) -> None:
    """What a rank does: calls its function and leaves the outcome in a folder for the parent. The process then ends."""
    die_with_parent(work.parent)
    import torch

    from dgr_lightning.distributed.ranks import destroy_group

    number = int(os.environ["RANK"])
    console.quiet = console.quiet or number > 0
    if work.num_threads is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(work.num_threads)
    try:
        result = work.function()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # torch's CheckpointException is no Exception
        (work.folder / f"failure-{number}").write_bytes(pickle.dumps(_failure(number, error)))
        raise SystemExit(1) from None
    if number == 0:
        (work.folder / "result").write_bytes(pickle.dumps(result))
    destroy_group()


def result_of(folder: Path) -> Any:
    """Returns what the first rank returned."""
    return pickle.loads((folder / "result").read_bytes())


def failures_in(folder: Path) -> list[Failure]:
    """Returns what ranks of this machine raised, in the order in which they did; whoever lost another rank comes last."""
    files = sorted(folder.glob("failure-*"), key=lambda file: file.stat().st_mtime_ns)
    failures: list[Failure] = [pickle.loads(file.read_bytes()) for file in files]
    return sorted(failures, key=lambda failure: failure.kind == "lost")


def _failure(rank: int, error: BaseException) -> Failure:
    if isinstance(error, UserError):
        return Failure(rank, "user", str(error))
    from torch.distributed import DistError

    lost = isinstance(error, DistError) or any(words in str(error) for words in _LOST_PEER)
    return Failure(rank, "lost" if lost else "error", f"rank {rank}: {traceback.format_exc()}")


def _attempt(work: Work, num_ranks: int) -> str | None:
    """Runs all ranks to their end. Returns None if all is well, or a sentence about one that died."""
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
        max_restarts=0,  # restarts are counted above, where an exception is told from a death
    )
    # What they have to say is said in one sentence.
    for name in ("torch.distributed.elastic", "torch.multiprocessing.spawn"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        elastic_launch(config, do_work)(work)
    except ChildFailedError as error:
        failures = failures_in(work.folder)
        if failures and failures[0].kind != "lost":
            failures[0].reraise()
        dead = [(rank, failure.exitcode) for rank, failure in error.failures.items() if not _was_ended(failure.exitcode)]
        rank, exitcode = min(dead, key=lambda one: one[1], default=(error.get_first_failure()[0], 1))
        return f"rank {rank} of {num_ranks} died ({how(exitcode)})"
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + error.sigval) from None
    return None


def _was_ended(exitcode: int) -> bool:
    """Whether the agent ended a rank, because of another one."""
    return exitcode == -signal.SIGTERM


def how(exitcode: int) -> str:
    """Returns how a process ended, in a word: SIGKILL, exit code 1."""
    return signal.Signals(-exitcode).name if exitcode < 0 else f"exit code {exitcode}"
