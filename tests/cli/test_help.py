"""The help page and Hydra's own flags."""

import subprocess
import sys

import pytest

from dgr_lightning.config.schema import keys
from tests.helpers.runs import ROOT


def test_help_names_every_key_and_choice_and_is_quick():
    done = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert all(f"{key}=" in done.stdout for key in keys())
    for word in ("r1-distill-70b", "safechain", "vanilla", "safety-tax", "--cfg job"):
        assert word in done.stdout


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["--info", "defaults"]], ids=" ".join)
def test_hydra_flags_show_the_config_and_run_nothing(flags, tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), *flags, "sft.lr=2e-4", "model.seed=3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "lr: 0.0002" in done.stdout or "model/micro" in done.stdout
    assert list(tmp_path.iterdir()) == []
