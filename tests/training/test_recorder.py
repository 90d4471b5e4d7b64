"""Checkpoints and probes come when they are due, and nothing else is on the screen."""

import json
from pathlib import Path
from time import sleep
from types import SimpleNamespace

import pytest
import torch

from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.models.chat import Chat
from dgr_lightning.training import recorder
from dgr_lightning.training.fit import fit
from dgr_lightning.writing import CannotWrite
from tests.helpers.full_disks import files_no_larger_than
from tests.helpers.rank_trainings import config as two_ranks
from tests.helpers.ranks import on_two_ranks
from tests.helpers.trainings import config, curve, examples, exported, no_space, train


def test_checkpoints_come_when_they_are_due_and_never_before_the_first_step(base: Path, tmp_path: Path) -> None:
    seen: dict[int, list[str]] = {}

    def look(model, step: int) -> dict[str, float]:
        # It may still be on its way to the disk, one step behind or several.
        seen[step] = sorted(path.name.removesuffix(".partial") for path in (tmp_path / "checkpoints").glob("*"))
        return {}

    train(base, tmp_path, look, probes_every=1, trainer_checkpoint_every=4)
    four, eight = "step-00000004", "step-00000008"
    assert all(seen[step] == [] for step in range(5)) and all(seen[step] == [four] for step in range(5, 9))
    assert seen[10] in ([eight], [four, eight])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000010"]
    train(base, tmp_path / "end", trainer_checkpoint_every=0)
    assert [path.name for path in (tmp_path / "end" / "checkpoints").iterdir()] == ["step-00000010"]


def test_by_the_clock_a_short_training_has_the_one_at_its_end_alone(base: Path, tmp_path: Path, monkeypatch) -> None:
    def look(model, step: int) -> dict[str, float]:
        seen.update(path.name for path in (tmp_path / "run" / "checkpoints").glob("step-????????"))
        return {}

    seen: set[str] = set()
    train(base, tmp_path / "run", look, probes_every=1, trainer_checkpoint_every="auto")
    (last,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert last.name == "step-00000010" and not seen
    assert json.loads((last / "state.json").read_text())["optimizer"] is None, "no step follows that would need it"
    train(base, tmp_path / "kept", trainer_checkpoint_every="auto", trainer_keep_optimizer=True)
    state = json.loads((tmp_path / "kept" / "checkpoints" / last.name / "state.json").read_text())
    assert state["optimizer"] is not None


@pytest.mark.parametrize("room", [True, False])
def test_by_the_clock_they_come_while_there_is_room_for_them(base: Path, tmp_path: Path, monkeypatch, capsys, room) -> None:
    free = 2**60 if room else 1000
    monkeypatch.setattr("dgr_lightning.training.checkpoint_cadence.MOST_SECONDS_LOST", 0)
    monkeypatch.setattr("dgr_lightning.training.recorder.shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(OSError, match="no space left"):
        train(base, tmp_path, no_space, probes_every=8, trainer_checkpoint_every="auto")
    assert bool(list((tmp_path / "checkpoints").glob("step-????????"))) == room
    assert capsys.readouterr().out.count("no checkpoint before the end: 1000 B are free") == (not room)


def first_rank_decides(ranks: Ranks, base: Path, run_dir: Path) -> None:
    """A training whose ranks have clocks that disagree; every rank writes its part of the checkpoint of step 7."""

    def due(every, step: int, num_steps: int, times) -> bool:
        assert ranks.is_first
        return step in (7, num_steps)

    recorder.is_due = due
    cfg = two_ranks("fsdp", checkpoint_every="auto")
    cfg.probes.every = 9

    def probe(model, step: int) -> dict[str, float]:
        while step >= 9 and not (run_dir / "checkpoints" / "step-00000007").is_dir():
            sleep(0.01)
        return no_space(model, step)

    with pytest.raises(OSError, match="no space left"):
        fit(base, Chat.load(base), examples(), cfg, run_dir, probe)


@pytest.mark.slow
def test_the_clock_of_the_first_rank_decides_for_all(base: Path, tmp_path: Path) -> None:
    on_two_ranks(first_rank_decides, base, tmp_path)
    files = sorted(file.name for file in (tmp_path / "checkpoints" / "step-00000007").glob("*.safetensors"))
    assert [name[:10] for name in files] == ["rank-00000", "rank-00001"]


def test_a_checkpoint_that_failed_ends_the_training_at_the_next_step(base: Path, tmp_path: Path) -> None:
    def wait_for_it(model, step: int) -> dict[str, float]:
        while step == 3 and any((tmp_path / "checkpoints").iterdir()):
            sleep(0.01)
        return {"probe/refusal_rate": float(step)}

    with files_no_larger_than(20_000), pytest.raises(CannotWrite, match="step-00000002 could not be written"):
        train(base, tmp_path, wait_for_it, probes_every=1, trainer_checkpoint_every=2)
    assert max(curve(tmp_path)) in (2, 3), "step 4, before which it had failed, would have taken the next checkpoint"


def test_the_weights_where_a_curve_is_highest_become_the_model(base: Path, tmp_path: Path) -> None:
    values = {0: 0.9, 2: 0.1, 4: 0.5, 6: 0.5, 8: 0.2, 10: 0.3}

    def probe(model, step: int) -> dict[str, float]:
        seen[step] = model.get_input_embeddings().weight.detach().clone()
        return {"probe/reasoning_accuracy": values[step]}

    seen: dict[int, torch.Tensor] = {}
    train(base, tmp_path / "run", probe, probes_every=2, sft_select="probe/reasoning_accuracy", trainer_checkpoint_every=0)
    embeddings = exported(tmp_path / "run")["model.embed_tokens.weight"]
    assert torch.equal(embeddings, seen[6].to(torch.bfloat16)) and not torch.equal(embeddings, seen[10].to(torch.bfloat16))
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000006", "step-00000010"]


def test_lightning_says_nothing(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chat = Chat.load(base)
    capfd.readouterr()
    fit(base, chat, examples(), config(sft_max_steps=5, sft_max_tokens=4096), tmp_path)
    output = capfd.readouterr()
    assert output.err == ""
    (line,) = output.out.splitlines()
    assert line.startswith("training: 5/5 in") and "loss" in line and "tokens/s" in line
