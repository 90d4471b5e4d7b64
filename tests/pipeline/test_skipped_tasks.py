"""A training whose evaluation lacks the data of a task: measured without it, and whole once the data is there."""

import json
import os

import pytest

from dgr_lightning.files import read_json
from tests.helpers.runs import GREEDY, SMALL, run

OUTSIDE = """
from dgr_lightning.tasks.task import Task

MINE = Task("mine", "reasoning", lambda row, index: (str(index), row["prompt"], row["gold"]), {"evaluation": "test"},
            grader="maths", language="micro")
"""


@pytest.mark.slow
def test_a_task_that_was_skipped_is_measured_later_and_nothing_else_is_done_again(tmp_path, cache, monkeypatch):
    (tmp_path / "outside_of_all.py").write_text(OUTSIDE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    run_dir, tasks = tmp_path / "run", "evaluation.tasks=[micro-short,outside_of_all:MINE,micro-harmful]"
    few = [*SMALL, *GREEDY, "refine=vanilla", "sft.max_steps=2", "evaluation.missing=skip", tasks, "trainer=cpu"]

    first = run(run_dir, cache, *few)
    summary = read_json(run_dir / "summary.json")
    assert "not measured: mine" in first and summary["skipped"] == {"mine": "reasoning"}
    for side in ("base", "tuned"):
        assert summary[side]["headline"]["reasoning_accuracy"]["value"] is None
        assert set(summary[side]["tasks"]) == {"micro-short", "micro-harmful"}
    assert summary["tax"]["points"]["value"] is None and len(summary["warnings"]) == 1
    assert summary["warnings"][0] in (run_dir / "report.html").read_text()

    (tmp_path / "mine.jsonl").write_text(json.dumps({"prompt": "2 plus 3", "gold": "5"}) + "\n")
    second = run(run_dir, cache, *few, f"evaluation.path.mine={tmp_path / 'mine.jsonl'}")
    whole = read_json(run_dir / "summary.json")
    assert second.count("1 completions generated") == 2, "of base and tuned, the output of the new task alone"
    assert "skipped" not in whole and "warnings" not in whole and whole["config_hash"] == summary["config_hash"]
    assert set(whole["tuned"]["tasks"]) == {"micro-short", "mine", "micro-harmful"}
    assert whole["base"]["headline"]["reasoning_accuracy"]["value"] is not None
    assert whole["tax"]["points"]["value"] is not None and whole["training"] == summary["training"]
