"""The sources that a run needs are within reach, or one message names all that are not.

A small server stands in for the hub, and the real libraries talk to it.
"""

import pytest

from dgr_lightning.cli import missing_tasks, preflight
from dgr_lightning.cli.compose import compose
from dgr_lightning.cli.failures import BAD_CONFIG
from dgr_lightning.config import Config, JudgeConfig, RefineConfig
from dgr_lightning.data.hub import GATED, READY, UNREACHABLE
from dgr_lightning.errors import UserError
from dgr_lightning.models import hub
from tests.helpers.hub import COMMIT, MODEL, NOBODY
from tests.helpers.messages import check_message


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """A machine that reaches no hub and has an empty cache."""
    monkeypatch.setattr(hub, "hub_reachable", lambda: False)
    monkeypatch.setattr(preflight, "model_available", lambda *named, **how: False)
    monkeypatch.setattr(preflight, "dataset_access", lambda *named, **how: UNREACHABLE)
    monkeypatch.setattr(missing_tasks, "dataset_access", lambda *named, **how: UNREACHABLE)


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
    missing_tasks.drop_probes(cfg.probes, asked_for=False)
    assert cfg.probes.tasks == ["advbench"]
    assert "probes.path.gsm8k" in capsys.readouterr().out
    cfg = compose("train", [*overrides, "probes.tasks=[gsm8k]"])
    with pytest.raises(UserError, match=r"probes\.path\.gsm8k"):
        missing_tasks.drop_probes(cfg.probes, asked_for=True)


def test_without_a_hub_every_part_of_a_mixture_is_asked_for_that_is_not_here(no_hub, folder, rows):
    parts = (
        f"{{data: star1, share: .5}}, {{data: local, path: {rows}, share: .3}}, {{data: safechain, kind: benign, share: .2}}"
    )
    cfg = compose("train", [f"model.path={folder}", f"data.mix=[{parts}]"])
    with pytest.raises(UserError) as error:
        preflight.require_sources(cfg)
    message = str(error.value)
    assert "data UCSC-VLAA/STAR-1 (data.mix[0].path), data UWNSL/SafeChain (data.mix[2].path)." in message
    assert "in these parts of data.mix" in message and "data.path=" not in message


def test_gated_data_is_refused_with_its_page(monkeypatch, folder):
    monkeypatch.setattr(preflight, "dataset_access", lambda hub_id, _: GATED if hub_id == "owner/gated" else READY)
    cfg = compose("train", [f"model.path={folder}", "data.hub_id=owner/gated"])
    with pytest.raises(UserError) as error:
        preflight.require_sources(cfg)
    assert str(error.value) == (
        "The hub hands these out only to accounts that have accepted their terms: data owner/gated, "
        "https://huggingface.co/datasets/owner/gated. Accept them there, then log in with `hf auth login`, or set HF_TOKEN. "
        "Or use a local copy: data.path=<jsonl, json, csv or parquet file>."
    )


BOTH = (
    f"require_sources(Config(model=ModelConfig(hub_id='owner/model', revision='{COMMIT}'), "
    f"data=DataConfig(hub_id='owner/MySet', revision='{COMMIT}')))"
)


def test_without_a_hub_one_message_names_model_and_data_quickly_and_quietly(ask):
    message, noise, slept = ask(BOTH, NOBODY)
    assert message.startswith(f"UserError: The Hugging Face hub ({NOBODY}) cannot be reached")
    assert all(part in message for part in ("model owner/model", "data owner/MySet", "model.path=", "data.path="))
    assert noise == "" and slept == 0


def test_offline_mode_asks_nobody(ask, hub):
    message, _, _ = ask(BOTH, hub.url, HF_HUB_OFFLINE="1")
    assert "switched off (HF_HUB_OFFLINE)" in message and not hub.asked


def test_the_hub_is_asked_once_a_process(ask, hub):
    assert ask(f"[hub_reachable(), hub_reachable(), {BOTH}]", hub.url)[0] == [True, True, None]
    assert hub.asked.count("/") == 1


def test_what_is_local_needs_no_hub(ask, hub, tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes(MODEL[name])
    data = f"DataConfig(path={str(tmp_path / 'rows.jsonl')!r})"
    local = f"require_sources(Config(model=ModelConfig(path={str(tmp_path)!r}, hub_id='a/b'), data={data}))"
    recipe = "require_sources(Config(model=ModelConfig(recipe='micro'), data=DataConfig(recipe='micro-r1act')))"
    for code in (local, recipe):
        assert ask(code, hub.url)[0] is None
    assert not hub.asked


def test_what_is_local_already_is_said_so(ask):
    message = ask("require_sources(Config(model=ModelConfig(recipe='micro'), data=DataConfig(hub_id='owner/MySet')))", NOBODY)[
        0
    ]
    assert "cache: data owner/MySet." in message and "(local already: micro)" in message and "model.path=" in message


# --- Guards ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def require(monkeypatch):
    """Returns a function that looks for the guard of a command, with a hub that answers and has what it is told to have."""

    def require(command, name="llama-guard", strategy="dgr", reachable=True, closed=False, model=None):
        asked = []
        monkeypatch.setattr(preflight, "hub_reachable", lambda: asked.append("hub") or reachable)
        monkeypatch.setattr(preflight, "closed_to_us", lambda hub_id: asked.append(hub_id) or closed)
        monkeypatch.setattr(preflight, "cached_model", lambda *named, **how: None)
        cfg = Config(judge=JudgeConfig(name=name, model=model), refine=RefineConfig(strategy=strategy))
        preflight.require_guards(cfg, command)
        return asked

    return require


def test_a_guard_that_is_not_asked_or_is_here_is_not_looked_for(require, tmp_path):
    assert require("refine") == require("evaluate", "keywords") == require("train", model=str(tmp_path)) == []
    assert require("refine", strategy="thinksafe") == ["hub", "meta-llama/Llama-Guard-3-8B"]
    assert require("evaluate", model="owner/other") == ["hub", "owner/other"]


def test_without_a_hub_a_guard_asks_for_a_local_copy(require):
    with pytest.raises(UserError, match=r"judge=wildguard needs allenai/wildguard, which is not .* judge\.model=<folder"):
        require("train", "wildguard", reachable=False)


def test_a_guard_that_the_hub_does_not_give_says_what_to_accept(require):
    with pytest.raises(UserError) as refused:
        require("evaluate", closed=True)
    message = str(refused.value)
    assert "judge=llama-guard: the hub does not give meta-llama/Llama-Guard-3-8B to this account. Accept its terms" in message
    assert "https://huggingface.co/meta-llama/Llama-Guard-3-8B" in message and "judge.model=<folder" in message


def test_a_hub_says_which_repositories_it_does_not_give(ask, hub):
    hub.repositories["/api/models/owner/model/auth-check"] = ("/owner/model", MODEL)
    assert ask("[closed_to_us('owner/model'), closed_to_us('owner/gated')]", hub.url)[0] == [False, True]


def test_a_guard_out_of_reach_ends_with_exit_code_2(no_hub, run_script, monkeypatch, capsys):
    monkeypatch.setattr(preflight, "hub_reachable", lambda: False)
    monkeypatch.setattr(preflight, "cached_model", lambda *named, **how: None)
    for command in ("train", "evaluate"):
        code, seen = run_script("judge=qwen3guard", command=command)
        assert code == BAD_CONFIG and seen == []
        check_message(capsys.readouterr().err, ["judge=qwen3guard", "Qwen/Qwen3Guard-Gen-4B", "judge.model="])
