"""Training runs on PyTorch, Lightning and transformers, without the packages of the command line, of data sets and of W&B."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.runs import ROOT

TRAIN = """
import importlib, pkgutil, sys
from pathlib import Path
from tests.helpers.missing import hide
hide("hydra", "omegaconf", "datasets", "wandb")

for package in ("dgr_lightning.training", "dgr_lightning.models", "dgr_lightning.engines.transformers"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)

from tests.helpers import trainings
print(trainings.train(Path(sys.argv[1]), Path(sys.argv[2]), sft_max_steps=2).steps, "steps")
"""


@pytest.mark.slow
def test_training_models_and_transformers_engine_need_no_hydra_omegaconf_datasets_or_wandb(base: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(base), str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "2 steps" and (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_what_training_imports_warns_of_nothing(base: Path, tmp_path: Path) -> None:
    code = (
        "import logging, sys\nfrom pathlib import Path\nimport dgr_lightning\n"
        "levels = [logging.getLogger(name).level for name in ('torchao', 'torch.utils._pytree', 'bitsandbytes')]\n"
        "from tests.helpers import trainings\n"
        "trainings.train(Path(sys.argv[1]), Path(sys.argv[2]), sft_max_steps=1, tuning_method='lora', tuning_rank=2)\n"
        "assert levels == [0, 0, 0], levels\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(base), str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_training_needs_neither_hydra_nor_datasets() -> None:
    code = (
        "import sys, dgr_lightning.training.sft, dgr_lightning.training.packing, dgr_lightning.training.probes\n"
        "print(*{'hydra', 'omegaconf', 'datasets', 'wandb', 'bitsandbytes'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
