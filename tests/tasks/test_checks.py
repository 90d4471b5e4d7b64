"""Choices of tasks that are refused before anything is loaded, with the override that is wrong."""

from pathlib import Path

import pytest

from dgr_lightning.config import EvaluationConfig, ProbesConfig
from dgr_lightning.errors import UserError
from dgr_lightning.tasks.checks import check_tasks
from dgr_lightning.tasks.registry import TASKS

MICRO = [name for name in TASKS if name.startswith("micro-")]


def check(evaluation=(), probes=(), language="natural", paths=None, probe_paths=None, every=50):
    check_tasks(
        EvaluationConfig(tasks=list(evaluation), path=paths or {}),
        ProbesConfig(tasks=list(probes), path=probe_paths or {}, every=every),
        language,
    )


def test_the_shipped_choices_are_accepted(gsm8k):
    check(MICRO, MICRO, "micro")
    check(["gsm8k", "math500", "strongreject", "xstest"], ["gsm8k", "advbench", "jailbreakbench_benign"])
    check(["gsm8k"], [], paths={"gsm8k": gsm8k})
    check(["jailbreakbench_benign", "advbench"], ["gsm8k"])


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"evaluation": ["gsm8"]}, r"evaluation\.tasks: no task 'gsm8'\. Did you mean gsm8k\? Choose among aime24, aime25"),
        ({"probes": ["nothing"]}, r"probes\.tasks: no task 'nothing'\. Choose among gsm8k, advbench"),
        ({"evaluation": ["micro-short"]}, r"evaluation\.tasks: micro-short is in the micro language.*Choose among aime24"),
        ({"evaluation": ["gsm8k"], "language": "micro"}, r"gsm8k is in the natural language.*Choose among micro-short"),
        ({"probes": ["xstest"]}, r"probes\.tasks: xstest is reported only, it has no probe split"),
        ({"evaluation": ["advbench"], "probes": ["advbench"]}, r"advbench has one split only.*no other task of its kind has a"),
        (
            {"evaluation": ["jailbreakbench_benign"], "probes": ["jailbreakbench_benign"]},
            r"jailbreakbench_benign has one sp",
        ),
        ({"evaluation": ["gsm8k"], "paths": {"math500": "x"}}, r"evaluation\.path\.math500=x: 'math500' is none of the chosen"),
        (
            {"evaluation": ["gsm8k"], "paths": {"gsm8k": "nowhere.jsonl"}},
            r"evaluation\.path\.gsm8k=nowhere\.jsonl: there is no such",
        ),
        (
            {"probes": ["gsm8k"], "probe_paths": {"advbench": "x"}},
            r"probes\.path\.advbench=x: 'advbench' is none of the chosen",
        ),
        ({"evaluation": ["micro-short"], "language": "micro", "paths": {"micro-short": "x"}}, r"are generated, not read"),
    ],
)
def test_an_impossible_choice_names_the_override(choice, message):
    with pytest.raises(UserError, match=message):
        check(**choice)


def test_curves_over_the_reported_file_are_refused_whatever_its_name(gsm8k, tmp_path):
    copy = tmp_path / "train.jsonl"
    copy.write_bytes(Path(gsm8k).read_bytes())
    with pytest.raises(UserError, match=r"probes\.path\.gsm8k=.*the same problems as evaluation\.path\.gsm8k"):
        check(["gsm8k"], ["gsm8k"], paths={"gsm8k": gsm8k}, probe_paths={"gsm8k": str(copy)})


def test_without_curves_their_tasks_are_not_looked_at():
    check(["gsm8k"], ["nothing"], every=0)


OUTSIDE = """
from dgr_lightning.tasks.task import Task

MINE = Task("mine", "harmful", lambda row, index: (str(index), row["prompt"], None), {"evaluation": "test"})
CURVE = Task("curve", "harmful", lambda row, index: (str(index), row["prompt"], None), {"probe": "test"})
TWIN = Task("mine", "harmful", lambda row, index: (str(index), row["prompt"], None), {"evaluation": "train"})
"""


def test_a_task_from_outside_is_checked_like_the_projects_own(tmp_path, monkeypatch):
    (tmp_path / "checked_tasks.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    copy = tmp_path / "mine.jsonl"
    copy.write_text("{}\n")
    check(["checked_tasks:MINE", "gsm8k"], paths={"mine": str(copy)})
    for choice, message in (
        ({"evaluation": ["checked_tasks:MINE", "checked_tasks:TWIN"]}, r"checked_tasks:TWIN is the second task called mine"),
        ({"evaluation": ["checked_tasks:CURVE"]}, r"evaluation\.tasks: checked_tasks:CURVE is for curves only"),
        ({"probes": ["checked_tasks:MINE"]}, r"checked_tasks:MINE is reported only"),
        ({"evaluation": ["checked_tasks:MINE"], "language": "micro"}, r"is in the natural language"),
        ({"evaluation": ["checked_tasks:YOURS"]}, r"tasks=checked_tasks:YOURS: checked_tasks has no YOURS"),
    ):
        with pytest.raises(UserError, match=message):
            check(**choice)
