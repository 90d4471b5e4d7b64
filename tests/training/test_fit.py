"""Whole trainings: the textbook loop, resuming to the bit, and what is left on disk."""

import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import torch

from dgr_lightning.errors import UserError
from dgr_lightning.models.chat import Chat
from dgr_lightning.models.weights import load_model
from dgr_lightning.training import sft
from dgr_lightning.training.fit import fit
from dgr_lightning.training.packing import step_examples
from dgr_lightning.training.sft import lr_multiplier
from tests.helpers.runs import ROOT
from tests.helpers.trainings import (
    assert_same_weights,
    config,
    curve,
    examples,
    exported,
    plain_loss,
    train,
    train_twice,
    weights,
)


def test_fit_is_the_textbook_loop(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps against plain PyTorch: batches, loss, gradient, schedule, clipping, weight decay, all at once."""

    def clip(*args) -> torch.Tensor:
        norm = real_clip(*args)
        norms.append(norm.item())
        return norm

    norms: list[float] = []
    real_clip = sft.clip_gradients
    monkeypatch.setattr(sft, "clip_gradients", clip)
    result = train(base, tmp_path, sft_clip_norm=0.5)
    monkeypatch.undo()
    chat, model = Chat.load(base), load_model(base, "master", "cpu").train()
    encoded = [chat.encode(row.prompt, row.trace, row.answer, 128) for row in examples()]
    matrices, rest = ([weight for weight in model.parameters() if (weight.ndim > 1) == flag] for flag in (True, False))
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=1e-2)
    batches = [step for epoch in range(2) for step in step_examples(20, 4, 3, epoch)]
    losses, expected_norms = [], []
    for number, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * lr_multiplier(number, 10, 1)
        loss = plain_loss(model, [encoded[index] for index in batch])
        loss.backward()
        expected_norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5).item())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert norms == pytest.approx(expected_norms, rel=1e-3) and max(norms) > 0.5  # Adam alone would hide a wrong scale
    assert list(curve(tmp_path)) == list(range(1, 11))
    assert list(curve(tmp_path).values()) == pytest.approx(losses, rel=1e-4)
    trained = weights(tmp_path)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(trained[f"model.{name}"], weight, rtol=1e-3, atol=2e-4, msg=name)
    assert (result.steps, result.resumed_from_step) == (10, 0)
    assert (result.loss_first, result.loss_last) == (curve(tmp_path)[1], curve(tmp_path)[10])
    assert result.target_tokens == 2 * sum(len(document.ids) - document.num_prompt for document in encoded)
    assert result.tokens_per_second > 0 and result.peak_memory_bytes > 100 * 2**20
    assert losses[-1] < 0.8 * losses[0]


def test_the_update_is_the_same_whatever_the_rows_hold(base: Path, tmp_path: Path) -> None:
    # The first step of Adam is ± lr whatever the gradient's size, so what rounding does to a gradient near zero would show.
    for max_tokens in (8, 60, 4096):
        train(base, tmp_path / str(max_tokens), sft_max_tokens=max_tokens, sft_lr=1e-4)
    whole = weights(tmp_path / "4096")
    for max_tokens in (8, 60):
        assert curve(tmp_path / str(max_tokens)) == pytest.approx(curve(tmp_path / "4096"), rel=1e-6)
        for name, weight in weights(tmp_path / str(max_tokens)).items():
            torch.testing.assert_close(weight, whole[name], rtol=1e-4, atol=5e-6, msg=name)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_command_gives_the_same_weights(base: Path, tmp_path: Path, precision: str) -> None:
    for name in ("one", "other"):
        train(base, tmp_path / name, trainer_precision=precision, sft_max_steps=3)
    assert_same_weights(tmp_path / "one", tmp_path / "other")
    assert all(weight.dtype == torch.float32 for weight in weights(tmp_path / "one").values())


@pytest.mark.slow
def test_compiled_layers_train_to_the_same(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "plain", sft_max_steps=4)
    train(base, tmp_path / "compiled", sft_max_steps=4, trainer_compile=True)
    assert curve(tmp_path / "compiled") == pytest.approx(curve(tmp_path / "plain"), rel=1e-5)


def test_a_device_without_enough_memory_is_said_with_what_needs_less(base: Path, tmp_path: Path) -> None:
    def probe(model, step: int) -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    with pytest.raises(UserError, match=r"more memory .*\(CUDA out of memory\)\. trainer\.recompute_every=1 .*max_tokens=100"):
        train(base, tmp_path / "run", probe)


KILLED = """
import os, signal, sys, time
import torch
from tests.helpers import trainings
torch.set_num_threads(1)

def probe(model, step):
    with open({asked!r}, "a") as file:
        file.write(f"{{step}} ")
    if step == 8:
        while [path.name for path in Path({run_dir!r}, "checkpoints").iterdir()] != ["step-00000006"]:
            time.sleep(0.01)  # it is written while training goes on
        os.kill(os.getpid(), signal.SIGKILL)
    return {{"probe/refusal_rate": 0.5}}

from pathlib import Path
trainings.train(Path({base!r}), Path({run_dir!r}), probe)
"""


def test_killed_and_resumed_is_uninterrupted_to_the_bit(base: Path, tmp_path: Path) -> None:
    def probe(model, step: int) -> dict[str, float]:
        asked.append(step)
        return {"probe/refusal_rate": 0.5}

    asked: list[int] = []
    undisturbed, run_dir, asked_file = tmp_path / "undisturbed", tmp_path / "killed", tmp_path / "asked"
    train(base, undisturbed, probe)
    assert asked == [0, 4, 8, 10]

    names = {"base": str(base), "run_dir": str(run_dir), "asked": str(asked_file)}
    killed = subprocess.run([sys.executable, "-c", KILLED.format(**names)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert asked_file.read_text() == "0 4 8 "
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-00000006"]
    assert max(curve(run_dir)) == 7  # a row that the checkpoint knows nothing of
    assert not (run_dir / "model").exists()

    # What a kill in the middle of writing would leave.
    half = run_dir / "checkpoints" / "step-00000009.partial"
    half.mkdir()
    (half / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"half")
    with open(run_dir / "metrics.csv", "a") as file:
        file.write("8,0.1")
    asked.clear()
    result = train(base, run_dir, probe)
    assert result.resumed_from_step == 6
    assert asked == [8, 10]
    assert_same_weights(undisturbed, run_dir)
    for name in ("train/loss", "train/lr", "probe/refusal_rate"):
        assert curve(run_dir, name) == curve(undisturbed, name)
    machine = [
        f"train/{name}" for name in ("tokens_per_second", "target_tokens_per_second", "data_wait_seconds", "memory_gib", "mfu")
    ]
    timeless = [pandas.read_csv(folder / "metrics.csv").drop(columns=machine) for folder in (run_dir, undisturbed)]
    assert timeless[0].equals(timeless[1])
    assert exported(run_dir).keys() == exported(undisturbed).keys()
    assert result.loss_first == curve(undisturbed)[1]


# bf16 takes ten times as long where the processor has none.
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"trainer_precision": "bf16"}, marks=pytest.mark.slow),
        {"sft_optimizer": "adamw8bit"},
        {"sft_max_steps": 9},
    ],
)
def test_an_interrupted_training_resumes_to_the_bit_with_other_settings_too(base: Path, tmp_path: Path, changes: dict) -> None:
    if "sft_optimizer" in changes:
        pytest.importorskip("bitsandbytes")
    train_twice(base, tmp_path, **changes)
    assert_same_weights(tmp_path / "undisturbed", tmp_path / "interrupted")


def test_killed_before_the_first_checkpoint_it_begins_anew_without_probing_again(base: Path, tmp_path: Path) -> None:
    def interrupt(model, step: int) -> dict[str, float]:
        if step == 2:
            raise OSError("no space left")
        return {"probe/refusal_rate": 0.25}

    with pytest.raises(OSError, match="no space left"):
        train(base, tmp_path, interrupt, probes_every=2)
    asked: list[int] = []
    result = train(base, tmp_path, lambda model, step: asked.append(step) or {}, probes_every=4)
    assert asked == [4, 8, 10] and result.resumed_from_step == 0
    assert curve(tmp_path, "probe/refusal_rate") == {0: 0.25}
    assert list(curve(tmp_path)) == list(range(1, 11))


def test_a_finished_training_is_only_exported_again(base: Path, tmp_path: Path) -> None:
    first = train(base, tmp_path)
    before = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "model" / "model.safetensors").unlink()
    again = train(base, tmp_path, lambda model, step: pytest.fail("probed again"))
    assert again.resumed_from_step == again.steps == 10
    assert (again.loss_first, again.loss_last, again.target_tokens) == (first.loss_first, first.loss_last, first.target_tokens)
    assert (tmp_path / "metrics.csv").read_text() == before
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_diverged_training_stops_before_it_spoils_the_weights(base: Path, tmp_path: Path) -> None:
    def spoil(model, step: int) -> dict[str, float]:
        if step == 4:
            model.get_input_embeddings().weight.data.fill_(math.nan)
        return {}

    with pytest.raises(FloatingPointError, match=r"step 5: the loss is nan.*sft\.lr=0\.01"):
        train(base, tmp_path, spoil)
    assert max(curve(tmp_path)) == 4


def test_what_cannot_be_trained_on_is_said_before_anything_is_loaded(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"on_failure=drop"):
        fit(base, Chat.load(base), [], config(), tmp_path)
    with pytest.raises(UserError, match=r"e-0: sft\.max_length=16"):
        train(base, tmp_path, sft_max_length=16)
    assert not list(tmp_path.iterdir())


def test_what_goes_unlearned_is_said(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = examples()
    rows[3] = replace(rows[3], trace=" ".join([rows[3].trace, "subtract 5"]))
    chat = Chat.load(base)
    longest = max(len(chat.encode(row.prompt, row.trace, row.answer, 128).ids) for row in examples())
    train(base, tmp_path, rows=rows, sft_max_length=longest, sft_max_steps=3)
    output = capfd.readouterr().out
    assert f"sft.max_length={longest}: 1 of 20 examples are longer; their traces lose 2 tokens in all" in output
    assert "sft.max_steps=3 ends within the first epoch: 8 of 20 examples are never trained on" in output


def test_a_gpu_run_under_slurm_is_not_taken_for_lightnings(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SLURM_NTASKS": "4",
        "SLURM_JOB_NAME": "sweep",
        "SLURM_JOB_ID": "1",
        "SLURM_NTASKS_PER_NODE": "4",
    }.items():
        monkeypatch.setenv(name, value)
    assert train(base, tmp_path, sft_max_steps=1).steps == 1
