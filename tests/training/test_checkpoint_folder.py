"""The folder of a run's checkpoints: what is half written or half deleted is never taken for a checkpoint."""

from pathlib import Path

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.training.checkpoint_folder import CheckpointFolder


def filled(path: Path, *names: str) -> CheckpointFolder:
    for name in names:
        (path / name).mkdir(parents=True)
        (path / name / "weights").write_text("x")
    return CheckpointFolder(path)


def test_steps_are_those_of_whole_checkpoints(tmp_path: Path) -> None:
    folder = filled(tmp_path / "checkpoints", "step-00000012", "step-00000003", "step-00000020.partial", "notes")
    assert folder.steps() == [3, 12] and folder.of(3).name == "step-00000003"
    folder.delete_leftovers()
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step-00000012", "step-00000003", "notes"}


def test_a_checkpoint_whose_deletion_is_cut_short_has_lost_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = filled(tmp_path / "checkpoints", "step-00000003", "step-00000006")

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dgr_lightning.training.checkpoint_folder.shutil.rmtree", killed)
        for delete in (lambda: folder.delete(3), folder.delete_all):
            with pytest.raises(KeyboardInterrupt):
                delete()
    assert folder.steps() == []
    folder.delete_all()
    assert list(tmp_path.iterdir()) == []
    folder.delete_all()  # there is none


def test_a_file_where_the_folder_goes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match="checkpoints: a file, where checkpoints go"):
        CheckpointFolder(tmp_path / "checkpoints")
