"""Every saved checkpoint of a training evaluated afterwards: the same models, steps and W&B run as the training's."""

import csv
import subprocess

import pytest

from dgr_lightning.cli.compose import compose
from dgr_lightning.errors import UserError
from dgr_lightning.pipeline.checkpoint_curve import curve_figures
from dgr_lightning.statistics.intervals import Estimate, rate
from tests.helpers.runs import command, environment, run, summary_of
from tests.helpers.wandb_files import figures, records

TRAINING = ["refine=vanilla", "data.limit=16", "sft.max_steps=5", "trainer.checkpoint_every=2", "trainer.keep_checkpoints=9"]
TRAINING += ["trainer.keep_optimizer=true", "evaluation.limit=4", "probes.every=0", "shift.limit=4", "logger=wandb"]


def failed(*overrides, cache) -> str:
    """Returns the message of evaluate.py where it ends with exit code 2."""
    done = subprocess.run(
        [*command(cache / "unused", script="evaluate.py")[:2], *overrides],
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    return " ".join(done.stderr.split())


def test_a_point_has_headlines_and_metrics_with_the_ends_of_their_intervals():
    estimates = {"gsm8k": {"accuracy": rate([[True], [False]]), "cap_hit_rate": Estimate(0.5, 0.1, 0.9, 2)}}
    found = dict(curve_figures(estimates))
    assert found["evaluation/reasoning_accuracy"] == found["evaluation/gsm8k/accuracy"] == 0.5
    assert found["evaluation/gsm8k/accuracy_low"] < 0.5 < found["evaluation/gsm8k/accuracy_high"]
    assert not any("refusal" in name or "cap_hit" in name for name in found), "what was not measured is no point"


def test_what_is_no_finished_training_is_refused(tmp_path):
    assert "no finished training is there" in failed(f"checkpoints={tmp_path}", cache=tmp_path)
    with pytest.raises(UserError, match=r"are evaluated by evaluate\.py alone"):
        compose("train", [f"checkpoints={tmp_path}"])


@pytest.mark.slow
@pytest.mark.parametrize("tuning", [[], ["tuning=lora"]], ids=["full", "lora"])
def test_every_checkpoint_is_evaluated_once_into_the_run_of_the_training(tmp_path, monkeypatch, tuning):
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder, cache = tmp_path / "run", tmp_path / "cache"
    run(folder, cache, *TRAINING, *tuning)
    summary = summary_of(folder)

    def curve() -> str:
        done = subprocess.run(
            [
                *command(folder, script="evaluate.py")[:2],
                f"checkpoints={folder}",
                "evaluation.limit=4",
                "logger=wandb",
            ],
            env=environment(cache),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "Evaluation of checkpoints" in curve()
    rows = list(csv.DictReader((folder / "evaluation" / "checkpoints.csv").open()))
    assert [row["trainer/global_step"] for row in rows] == ["0", "2", "4", "5"]
    for row, subject in ((rows[0], "base"), (rows[-1], "tuned")):
        for name, estimate in summary[subject]["headline"].items():
            assert float(row[f"evaluation/{name}"]) == estimate["value"], "the curve ends where the run's own figures are"
    assert not list((folder / "evaluation").rglob("*.safetensors")), "the models of checkpoints are deleted again"
    logs = sorted((folder / "wandb").glob("offline-run-*/*.wandb"), key=lambda log: log.stat().st_mtime)
    told = figures(records(logs[-1]), "history")
    assert told["trainer/global_step"] == 5 and "evaluation/reasoning_accuracy" in told
    assert len({log.name for log in logs}) == 1, "one run of W&B"
    assert "Evaluation of checkpoints" in (folder / "report.html").read_text()
    assert "scoring" not in curve(), "what is evaluated is not evaluated again"
