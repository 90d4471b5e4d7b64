"""A model that the probes cannot decode with is refused before refinement, and not at step 0."""

import sys
from pathlib import Path

import pytest

from dgr_lightning.cli import entry
from dgr_lightning.cli.compose import compose
from dgr_lightning.cli.failures import BAD_CONFIG
from dgr_lightning.engines.transformers.engine import why_undecodable
from dgr_lightning.errors import UserError
from dgr_lightning.models.chat import Chat
from dgr_lightning.models.weights import outline
from dgr_lightning.pipeline import commands
from dgr_lightning.training.probes import check_probes
from tests.helpers.models import change_config
from tests.helpers.trainings import save_base


@pytest.fixture(scope="module")
def windowed(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("windowed") / "model", "Mistral", sliding_window=8)


def test_a_window_is_refused_before_anything_is_generated(windowed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["train.py"])
    overrides = ["model=micro", f"model.path={windowed}", f"hydra.run.dir={tmp_path / 'run'}", "trainer=cpu"]
    assert entry.run(commands.train, "train", overrides) == BAD_CONFIG
    error = " ".join(capsys.readouterr().err.split())
    assert "probes.every=25: MistralForCausalLM has layers with sliding_attention" in error and "probes.every=0" in error
    assert not (tmp_path / "cache" / "rewrites").exists() and not (tmp_path / "run" / "stages").exists()


def test_a_prompt_without_a_position_left_is_refused(base, tmp_path):
    import shutil

    short = Path(shutil.copytree(base, tmp_path / "short"))
    cfg = compose("train", ["model=micro"])
    chat = Chat.load(short)
    check_probes(short, cfg, chat)
    change_config(short, max_position_embeddings=8)
    with pytest.raises(UserError, match=r"Qwen3ForCausalLM has 8 positions, and a prompt of \d+ tokens leaves none"):
        check_probes(short, cfg, chat)


def test_attention_that_cannot_be_replaced_is_found_without_weights(base, monkeypatch):
    model = outline(base)
    assert why_undecodable(model, 5) is None
    monkeypatch.setattr(type(model), "set_attn_implementation", lambda self, name: None)
    assert "its own attention code" in why_undecodable(outline(base), 5)
