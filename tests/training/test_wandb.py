"""W&B is told no path, never asks on the terminal, and a resumed run is whole."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dgr_lightning.config import Config, LoggerConfig
from dgr_lightning.training.curves import STEP, Curves
from dgr_lightning.training.wandb import has_wandb_account, wandb_settings
from tests.helpers.wandb_files import records


def settings_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    run_dir = tmp_path / "a_run-0123"
    run_dir.mkdir()
    cfg = Config(name="sweep", logger=LoggerConfig(name="wandb"))
    cfg.model.path = cfg.refine.trace_template = "/home/somebody/secret"
    cfg.evaluation.path = {"gsm8k": "/home/somebody/secret"}
    settings = wandb_settings(cfg, run_dir, "0123456789ab")
    assert settings is not None
    return settings


def test_wandb_is_told_no_path_and_has_the_same_id_on_every_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for(tmp_path, monkeypatch)
    assert settings.id == "sweep-0123456789ab" and settings.group == "sweep" and settings.name == "a_run-0123"
    assert "secret" not in json.dumps(settings.config)
    assert settings.config["sft"]["lr"] == 1e-5
    assert wandb_settings(Config(), tmp_path, "0") is None


def test_an_account_is_found_where_wandb_login_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings_for(tmp_path, monkeypatch)
    assert not has_wandb_account()
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password 0123\n")
    (tmp_path / "netrc").chmod(0o600)
    assert has_wandb_account()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_wandb_account()
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert has_wandb_account()


def test_wandb_learns_no_host_and_no_packages_and_keeps_no_log_with_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setattr("socket.gethostname", lambda: "canary-host")
    monkeypatch.setattr("platform.node", lambda: "canary-host")
    settings = settings_for(tmp_path, monkeypatch)
    with Curves(settings.folder / "metrics.csv", wandb=settings) as curves:
        curves.write(0, {"train/loss": 2.0})
    (log,) = [path for path in (settings.folder / "wandb").rglob("*") if path.is_file()]
    (run,) = [record["run"] for record in records(log) if "run" in record]
    assert "host" not in run and run["config"]["update"]
    for told in ("canary-host", str(tmp_path), str(Path.cwd()), str(Path.home()) + "/", "somebody"):
        assert told.encode() not in log.read_bytes()


def test_a_group_that_gives_a_place_away_is_not_told(tmp_path: Path) -> None:
    cfg = Config(name="sweep", logger=LoggerConfig(name="wandb", group="/home/somebody/group"))
    settings = wandb_settings(cfg, tmp_path, "0123456789ab")
    assert settings is not None and settings.group == "withheld"


def history(run_folder: Path) -> list[dict[str, float]]:
    """What an offline run was told, read with W&B's own tool; its private fields (a leading underscore) left out."""
    (file,) = run_folder.glob("*.wandb")
    tool = Path(sys.executable).with_name("wandb")
    done = subprocess.run([tool, "leet", "inspect", "--json", file], capture_output=True, text=True, check=True)
    assert "secret" not in done.stdout
    records = [json.loads(line) for line in done.stdout.splitlines()]
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [{name: value for name, value in item.items() if not name.startswith("_")} for item in items]


def test_without_an_account_wandb_works_offline_and_a_resumed_run_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    settings = settings_for(tmp_path, monkeypatch)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    path = settings.folder / "metrics.csv"
    with Curves(path, wandb=settings) as curves:
        curves.write(0, {"probe/refusal_rate": 0.5})
        curves.write(1, {"train/loss": 2.0})
    time.sleep(1.1)  # W&B names its folders by the second
    with Curves(path, resumed_step=1, wandb=settings) as curves:
        curves.write(2, {"train/loss": 1.0})
    first, second = sorted((settings.folder / "wandb").glob("offline-run-*-sweep-0123456789ab"))
    told = [{STEP: 0, "probe/refusal_rate": 0.5}, {STEP: 1, "train/loss": 2}, {STEP: 2, "train/loss": 1}]
    assert history(first) == told[:2]
    assert history(second) == told
