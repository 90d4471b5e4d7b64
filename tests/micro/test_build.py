"""The shipped miniature, and those that are grown: which folder a seed gets, and that a regrown one is its like."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dgr_lightning.config import Config, ModelConfig
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.files import read_json, write_json
from dgr_lightning.hashes import file_hash
from dgr_lightning.micro import build, pretraining
from dgr_lightning.micro.build import GROWN, ORIGIN, SHIPPED, provide, recipe_of
from dgr_lightning.models.chat import Chat
from dgr_lightning.models.model_hash import model_hash
from dgr_lightning.models.weights import load_model
from dgr_lightning.pipeline.locate_model import locate
from dgr_lightning.scoring.judge import open_judge
from dgr_lightning.training.probes import Probes
from tests.helpers.configs import config

FOUR_MB = 4e6


@pytest.fixture
def pretrained(monkeypatch):
    """Seeds that were pretrained; the folder is a copy of the shipped one."""
    seeds = []

    def copy(recipe, folder, precision):
        seeds.append(recipe.seed)
        for file in SHIPPED.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())

    monkeypatch.setattr(pretraining, "grow", copy)
    return seeds


def test_what_is_shipped_is_small_safe_and_of_the_present_recipe():
    origin = read_json(SHIPPED / ORIGIN)
    assert origin["hash"] == recipe_of(0).hash, "the recipe has changed: python -m dgr_lightning.micro.ship"
    assert origin["weights"] == file_hash(SHIPPED / "model.safetensors")
    assert origin["machine"] and origin["date"] and origin["precision"] in ("bf16", "fp32")
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < FOUR_MB
    assert {file.suffix for file in SHIPPED.iterdir()} <= {".json", ".jinja", ".safetensors"}


def test_seed_0_is_shipped_and_the_others_are_grown_once(tmp_path, pretrained):
    assert provide(0, False, tmp_path, "fp32") == SHIPPED and pretrained == []
    first = provide(1, False, tmp_path, "fp32")
    assert first == provide(1, False, tmp_path, "fp32") and pretrained == [1]
    assert provide(0, True, tmp_path, "fp32") != SHIPPED and pretrained == [1, 0]
    assert provide(1, False, tmp_path, "bf16") != first and pretrained == [1, 0, 1]


def test_the_shipped_one_is_identified_by_content_and_a_grown_one_by_recipe(tmp_path, monkeypatch, pretrained):
    monkeypatch.setenv("DGR_CACHE", str(tmp_path))
    cfg = Config(model=ModelConfig(recipe="micro"))
    assert ModelHandle(locate(cfg.model), cfg).identity_hash == model_hash(SHIPPED)
    cfg.model.grow = True
    grown = ModelHandle(locate(cfg.model), cfg)
    identity = grown.identity_hash
    assert identity != model_hash(SHIPPED) == grown.model_hash
    # Another machine grows other weights from the same recipe: the same run, whose stores must not be mixed.
    config = grown.folder / "config.json"
    write_json(config, read_json(config) | {"rounding": "other"})
    again = ModelHandle(grown.folder, cfg)
    assert again.identity_hash == identity and again.model_hash != grown.model_hash


def test_grown_folders_name_their_recipe(tmp_path, pretrained):
    recipe = read_json(provide(3, False, tmp_path, "fp32") / GROWN)
    assert (recipe["seed"], recipe["hash"], recipe["precision"]) == (3, recipe_of(3).hash, "fp32")
    assert build.SHIPPED_SEED == 0


def measured(folder: Path, *tasks: str) -> dict[str, float]:
    """Rates of a model on the probe split of tasks, greedily."""
    cfg = config(model__language="micro", probes__tasks=list(tasks), probes__size=100, probes__max_new_tokens=160)
    probes = Probes(cfg, Chat.load(folder), open_judge(Config()))
    return probes(load_model(folder, "fp32", "cpu"), 0)


def test_the_shipped_one_reasons():
    found = measured(SHIPPED, "micro-short", "micro-medium")
    assert min(found["probe/micro-short/accuracy"], found["probe/micro-medium/accuracy"]) >= 0.95


@pytest.mark.slow
def test_a_short_regrowth_becomes_the_like_of_what_is_shipped(tmp_path):
    torch.manual_seed(0)
    pretraining.grow(replace(recipe_of(0), steps=350), tmp_path / "regrown", "fp32")
    tasks = ("micro-short", "micro-medium", "micro-harmful", "micro-benign")
    shipped, regrown = measured(SHIPPED, *tasks), measured(tmp_path / "regrown", *tasks)
    assert abs(regrown["probe/micro-short/accuracy"] - shipped["probe/micro-short/accuracy"]) <= 0.05
    assert abs(regrown["probe/micro-medium/accuracy"] - shipped["probe/micro-medium/accuracy"]) <= 0.10
    for rate in ("probe/refusal_rate", "probe/over_refusal_rate"):  # a base helps with everything
        assert abs(regrown[rate] - shipped[rate]) <= 0.15
