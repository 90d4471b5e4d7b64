"""Nodes that do not share the folders of a run, or whose file locks do not hold across them, are told so at its start."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dgr_lightning.distributed import multi_node, shared_folders, torchrun
from dgr_lightning.distributed.shared_folders import require_shared_folders
from dgr_lightning.errors import UserError


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The driver of two nodes, where the other one's part runs in this process; returns run directory and model folder."""
    run_dir, model = tmp_path / "run", tmp_path / "model"
    for folder in (run_dir, model, tmp_path / "cache"):
        folder.mkdir()
    (model / "config.json").touch()
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shared_folders, "_SECONDS_TO_SEE", 0.0)
    for name, value in {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", torchrun.NODE: "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(multi_node, "run_elsewhere", lambda look: look())
    return run_dir, model


def elsewhere(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Changes something for the other node alone."""

    def run(look: Callable[[], None]) -> None:
        change()
        look()

    monkeypatch.setattr(multi_node, "run_elsewhere", run)


def test_nodes_that_share_everything_leave_nothing_behind(two_nodes: tuple[Path, Path], tmp_path: Path) -> None:
    require_shared_folders(*two_nodes)
    assert not list((tmp_path / "run").iterdir()) and not list((tmp_path / "cache").iterdir())


def test_a_folder_that_a_node_does_not_see_is_named(
    two_nodes: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch, lambda: monkeypatch.setenv("DGR_CACHE", str(tmp_path / "own")))
    with pytest.raises(
        UserError, match=r"^\$DGR_CACHE: node 1 does not see what node 0 writes there; set DGR_CACHE to a shared"
    ):
        require_shared_folders(*two_nodes)
    elsewhere(monkeypatch, lambda: next((tmp_path / "run").iterdir()).rename(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"^the run directory: node 1 does not see .* hydra\.run\.dir="):
        require_shared_folders(*two_nodes)
    elsewhere(monkeypatch, (tmp_path / "model" / "config.json").unlink)
    with pytest.raises(UserError, match=r"^the model: node 1 does not find its folder\. .* HF_HOME"):
        require_shared_folders(*two_nodes)


def test_locks_that_hold_on_one_node_only_are_found(two_nodes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch, lambda: monkeypatch.setattr(fcntl, "flock", lambda file, operation: None))
    with pytest.raises(
        UserError, match=r"^the run directory: node 1 gets a file lock that node 0 holds, .* \(Lustre: -o flock;"
    ):
        require_shared_folders(*two_nodes)


def test_a_node_without_locks_is_found(two_nodes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(file: object, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    elsewhere(monkeypatch, lambda: monkeypatch.setattr(fcntl, "flock", no_locks))
    with pytest.raises(UserError, match=r"^the run directory: its file system has no file locks on node 1\. .* -o flock;"):
        require_shared_folders(*two_nodes)


def test_a_single_node_is_asked_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi_node, "run_elsewhere", lambda look: pytest.fail("asked"))
    require_shared_folders(tmp_path / "run", tmp_path / "model")
