"""Checkpoints and probes come when they are due, and nothing else is on the screen."""

from pathlib import Path

import pytest
import torch

from dgr_lightning.models.chat import Chat
from dgr_lightning.training.fit import fit
from tests.helpers.trainings import (
    config,
    examples,
    exported,
    train,
)


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
