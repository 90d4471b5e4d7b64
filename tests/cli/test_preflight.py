"""Without a hub: one message that names the keys that take local copies."""

import pytest

from dgr_lightning.cli import preflight
from dgr_lightning.cli.compose import compose
from dgr_lightning.cli.failures import BAD_CONFIG
from dgr_lightning.errors import UserError
from dgr_lightning.models import hub

# --- What is elsewhere ----------------------------------------------------------------------------------------------------
from tests.helpers.messages import check_message


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """A machine that reaches no hub and has an empty cache."""
    monkeypatch.setattr(hub, "hub_reachable", lambda: False)
    monkeypatch.setattr(preflight, "model_available", lambda *named, **how: False)
    monkeypatch.setattr(preflight, "dataset_available", lambda *named, **how: False)


def test_without_a_hub_one_message_names_model_path_and_data_path(no_hub, run_script, capsys):
    code, seen = run_script("model=r1-distill-7b", "data=r1act", "refine=dgr")
    assert code == BAD_CONFIG and seen == []
    check_message(capsys.readouterr().err, ["model.path", "data.path"])


def test_without_a_hub_the_evaluation_asks_for_local_tasks(no_hub, run_script, folder, rows, capsys):
    code, seen = run_script(f"model.path={folder}", "data=star1", f"data.path={rows}")
    assert code == BAD_CONFIG and seen == []
    check_message(capsys.readouterr().err, ["evaluation.path.gsm8k=", "evaluation.path.xstest="])


def test_without_a_hub_default_probes_are_left_out_and_said(no_hub, capsys, folder, rows):
    overrides = [f"model.path={folder}", "data=star1", f"data.path={rows}"]
    cfg = compose("train", [*overrides, f"probes.path.advbench={rows}"])
    preflight.drop_probes(cfg, asked_for=False)
    assert cfg.probes.tasks == ["advbench"]
    assert "probes.path.gsm8k" in capsys.readouterr().out
    cfg = compose("train", [*overrides, "probes.tasks=[gsm8k]"])
    with pytest.raises(UserError, match=r"probes\.path\.gsm8k"):
        preflight.drop_probes(cfg, asked_for=True)
