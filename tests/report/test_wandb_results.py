"""What W&B gets at the end: figures by the names of the summary, and tables of those outputs that may leave."""

import json
from pathlib import Path

import pytest

from dgr_lightning.config import LoggerConfig
from dgr_lightning.files import write_jsonl
from dgr_lightning.report.samples import sides_of
from dgr_lightning.report.wandb_results import output_tables, result_figures, send_results
from dgr_lightning.training.wandb import WandbSettings
from tests.helpers.finished_run import make_summary, write_run
from tests.helpers.wandb_files import figures, records


def test_results_have_the_names_of_the_summary_and_what_is_undefined_is_left_out() -> None:
    value = {"value": 0.5, "low": 0.4, "high": None, "n": 8}
    undefined = {"value": None, "low": None, "high": None, "n": 0}
    headline = {"reasoning_accuracy": value, "refusal_rate": undefined}
    summary = {
        "base": {"headline": headline, "tasks": {}},
        "tuned": {"headline": headline, "tasks": {"gsm8k": {"accuracy": value}}},
        "tax": {"points": value | {"value": -1.5}},
        "refinement": {"examples": 4, "fallback": {"a user's check": 2}, "nll_before": 1.5, "nll_after": None},
    }
    assert dict(result_figures(summary)) == {
        "base/reasoning_accuracy": 0.5,
        "base/reasoning_accuracy_low": 0.4,
        "tuned/reasoning_accuracy": 0.5,
        "tuned/reasoning_accuracy_low": 0.4,
        "tuned/gsm8k/accuracy": 0.5,
        "tuned/gsm8k/accuracy_low": 0.4,
        "tax/points": -1.5,
        "tax/points_low": 0.4,
        "refinement/examples": 4,
        "refinement/nll_before": 1.5,
    }


def sent(run: Path, **logger) -> dict[str, tuple[list[str], list[list]]]:
    return {task: (columns, rows) for task, columns, rows in output_tables(sides_of(run), LoggerConfig(**logger))}


def test_by_default_harmful_requests_and_tasks_from_outside_have_no_table(tmp_path):
    run = write_run(tmp_path)
    (run / "evaluation" / "base" / "gsm8k.jsonl").read_text()
    write_jsonl(run / "evaluation" / "base" / "of-my-own.jsonl", [])
    assert list(sent(run)) == ["gsm8k", "xstest"]
    assert list(sent(run, outputs="all")) == ["gsm8k", "of-my-own", "strongreject", "xstest"]
    assert sent(run, outputs="none") == {}


def test_a_row_has_a_sample_as_every_subject_answered_it(tmp_path):
    columns, rows = sent(write_run(tmp_path), rows=3)["gsm8k"]
    assert columns[:5] == ["id", "sample", "prompt", "gold", "base verdict"] and len(rows) == 3
    row = dict(zip(columns, rows[1], strict=True))
    assert (row["base verdict"], row["tuned verdict"], row["tuned tokens"], row["base ended"]) == ("right", "wrong", 10, "stop")


def test_keys_of_this_machine_are_not_in_a_table(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_canaryhubtoken0123456789")
    run = write_run(tmp_path)
    row = {"id": "gsm8k-0", "sample": 0, "kind": "reasoning", "num_tokens": 1, "finish_reason": "stop", "correct": True}
    write_jsonl(
        run / "evaluation" / "base" / "gsm8k.jsonl", [row | {"prompt": "p", "output": "hf_canaryhubtoken0123456789 </think> 5"}]
    )
    _, rows = sent(run)["gsm8k"]
    assert "canaryhub" not in json.dumps(rows)


@pytest.mark.slow
def test_an_offline_run_holds_figures_and_tables(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = write_run(tmp_path / "run")
    settings = WandbSettings("name-1", "project", None, "group", "name", run)
    send_results(settings, make_summary(), run, LoggerConfig(name="wandb"))
    (log,) = (run / "wandb").glob("offline-run-*/*.wandb")
    told = records(log)
    shown = figures(told, "summary")
    assert shown["tuned/gsm8k/accuracy"] == 0.78 and shown["tuned/gsm8k/accuracy_low"] < 0.78
    assert {"outputs/gsm8k/path", "outputs/xstest/path"} <= figures(told, "history").keys()
    tables = {file.name.split("_")[0]: file for file in log.parent.rglob("*.table.json")}
    assert set(tables) == {"gsm8k", "xstest"}
    assert len(json.loads(tables["gsm8k"].read_text())["data"]) == 4
    assert str(tmp_path).encode() not in log.read_bytes() and not any("artifact" in record for record in told)
