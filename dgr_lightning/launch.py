"""Starts a stage in processes of its own: one, or a rank for every device.

The process that parsed the command line is never a rank. It knows the resolved config; ranks are given that, not a command line
to parse once more, so that a sweep's points stay apart and every rank trains the same. They run under torch's elastic agent,
what torchrun is made of, and a stage's GPU memory is free again when its processes have ended.

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
from typing import Any, TypeVar
from uuid import uuid4

from dgr_lightning.console import console, say
from dgr_lightning.errors import UserError
from dgr_lightning.processes import die_with_parent

T = TypeVar("T")


class RankFailed(RuntimeError):
    """A rank raised an exception; the message holds its traceback."""


@dataclass(frozen=True)
class _Work:
    """What a rank is given: its function, a folder to answer in, the process that started it, and its threads."""

    function: Callable[[], Any]
    folder: Path
    parent: int
    num_threads: int | None


@dataclass(frozen=True)
class _Failure:
    """What a rank leaves of the exception that ended it."""

    kind: str
    message: str


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
    with tempfile.TemporaryDirectory(prefix="dgr-ranks-") as folder:
        for restarts_left in range(max_restarts, -1, -1):
            died = _attempt(_Work(function, Path(folder), os.getpid(), num_threads), num_ranks)
            if died is None:
                value: T = pickle.loads((Path(folder) / "result").read_bytes())
                return value
            if restarts_left:
                say(f"[yellow]{died}: all ranks are started again, {restarts_left} restarts left[/]")
        raise RankFailed(f"{died}; trainer.max_restarts={max_restarts} restarts did not help")


def _attempt(work: _Work, num_ranks: int) -> str | None:
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
    # What it has to say is said below, in one sentence.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        elastic_launch(config, _rank)(work)
    except ChildFailedError as error:
        failures = sorted(work.folder.glob("failure-*"), key=lambda file: file.stat().st_mtime_ns)
        if failures:
            failure: _Failure = pickle.loads(failures[0].read_bytes())
            raise (UserError if failure.kind == "UserError" else RankFailed)(failure.message) from None
        number, first = error.get_first_failure()
        return f"rank {number} of {num_ranks} died ({_how(first.exitcode)})"
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + error.sigval) from None
    return None


def _rank(work: _Work) -> None:
    """What a rank does: the function, its result or its failure left in a folder for the parent."""
    die_with_parent(work.parent)
    import torch

    number = int(os.environ["RANK"])
    console.quiet = number > 0
    if work.num_threads is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(work.num_threads)
    try:
        result = work.function()
    except Exception as error:
        kind = "UserError" if isinstance(error, UserError) else type(error).__name__
        message = str(error) if kind == "UserError" else f"rank {number}: {traceback.format_exc()}"
        (work.folder / f"failure-{number}").write_bytes(pickle.dumps(_Failure(kind, message)))
        raise SystemExit(1) from None
    if number == 0:
        (work.folder / "result").write_bytes(pickle.dumps(result))


def _how(exitcode: int) -> str:
    return signal.Signals(-exitcode).name if exitcode < 0 else f"exit code {exitcode}"
