"""Whether the nodes of a run share its folders, and file locks hold across them; asked before anything is generated.

Nodes divide the work through files: where they do not see each other's, each generates everything; and where a lock holds on
one node only (Lustre mounted with `localflock`, BeeGFS as it comes), two nodes write into one shard at the same time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

from dgr_lightning.cache import cache_dir
from dgr_lightning.distributed import multi_node, torchrun
from dgr_lightning.errors import UserError
from dgr_lightning.file_locks import take_lock
from dgr_lightning.writing import writing

_POLL_SECONDS = 0.2
# For how long a node may not yet see a new file: a network file system remembers what was not there.
_SECONDS_TO_SEE = 5.0

_RUN = "the run directory"
_CACHE = "$DGR_CACHE"
_ELSEWHERE = {
    _RUN: "start the command in a shared folder, or name one with hydra.run.dir=",
    _CACHE: "set DGR_CACHE to a shared folder, the same on all nodes",
}


def require_shared_folders(run_dir: Path, model_folder: Path) -> None:
    """Checks on every node that it sees the run directory, the cache and the model, and that file locks hold there.

    Does nothing on a single node.

    Args:
        run_dir: the run directory, which exists.
        model_folder: of the target model.

    Raises:
        UserError: a node does not; the message says which folder and node, and what to do.
    """
    if not torchrun.is_active() or torchrun.size()[1] == 1:
        return
    name = f".shared-{uuid4().hex}"  # one that no node has looked for, so that none remembers it as missing
    folders = {_RUN: run_dir, _CACHE: cache_dir()}
    if not os.access(folders[_CACHE], os.W_OK):
        del folders[_CACHE]  # nothing is locked in one that is read only
    with ExitStack() as held:
        for folder in folders.values():
            held.enter_context(_locked_file(folder / name))
        multi_node.run_elsewhere(partial(_look, run_dir, name, list(folders), model_folder))


@contextmanager
def _locked_file(path: Path) -> Iterator[None]:
    """A new file, locked by this process until it is deleted."""
    with writing(path):
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed before it is deleted, which network disks like better
    try:
        taken = take_lock(file, wait=False)
        assert taken, "nobody else knows this file"
        yield
    finally:
        file.close()
        path.unlink(missing_ok=True)


def _look(run_dir: Path, name: str, asked: list[str], model_folder: Path) -> None:
    """Checks one of the other nodes; runs in a process of it."""
    node = os.environ[torchrun.NODE]
    folders = {_RUN: run_dir, _CACHE: cache_dir()}
    for which in asked:
        _check_folder(which, folders[which] / name, node)
    if not (model_folder / "config.json").exists():
        raise UserError(
            f"the model: node {node} does not find its folder. A model of the hub lies in HF_HOME: set it to a folder that all "
            "nodes share. A local one (model.path) must lie in such a folder, too."
        )


def _check_folder(which: str, file: Path, node: str) -> None:
    deadline = time.monotonic() + _SECONDS_TO_SEE
    while not file.exists():
        if time.monotonic() >= deadline:
            raise UserError(f"{which}: node {node} does not see what node 0 writes there; {_ELSEWHERE[which]}.")
        time.sleep(_POLL_SECONDS)
    remedy = (
        "Mount its file system on all nodes with locks that hold across them (Lustre: -o flock; BeeGFS: "
        f"tuneUseGlobalFileLocks=true; NFS 4), or {_ELSEWHERE[which]}."
    )
    with open(file, "r+", encoding="utf-8") as opened:
        try:
            taken = take_lock(opened, wait=False)
        except UserError as error:
            raise UserError(f"{which}: its file system has no file locks on node {node}. {remedy}") from error
    if taken:
        raise UserError(
            f"{which}: node {node} gets a file lock that node 0 holds, so both would write the same files. {remedy}"
        )
