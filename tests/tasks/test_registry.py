"""Tasks by name: those of the project, found by their files, and those from outside."""

from pathlib import Path

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.scoring.grader import GRADERS
from dgr_lightning.tasks import benchmarks
from dgr_lightning.tasks.registry import TASKS, Tasks
from dgr_lightning.tasks.task import Task


def test_pinned_revisions_are_whole_commits():
    for task in TASKS.values():
        assert task.revision is None or (len(task.revision) == 40 and int(task.revision, 16) >= 0)


def test_every_file_of_the_package_holds_tasks_and_all_are_found():
    assert list(TASKS) == [
        *("aime24", "aime25", "gpqa", "gsm8k", "math500", "micro-short", "micro-medium", "micro-long", "mmlu_pro"),
        *("advbench", "beavertails", "harmbench", "harmbench_standard", "harmbench_adversarial", "jailbreakbench"),
        *("micro-harmful", "strongreject", "wildguardtest"),
        *("wildjailbreak", "wildjailbreak_star1", "wildjailbreak_harmful", "xstest_unsafe"),
        *("jailbreakbench_benign", "micro-benign", "wildguardtest_benign", "wildjailbreak_benign", "xstest"),
    ]
    assert all(TASKS[name].name == name for name in TASKS)
    assert {task.grader for task in TASKS.values()} - {None} <= {*GRADERS.names()}


def test_a_new_file_is_a_new_task_and_nothing_else_is_edited(tmp_path, monkeypatch):
    source = Path(benchmarks.__path__[0]) / "strongreject.py"
    (tmp_path / "copied.py").write_text(source.read_text().replace('name="strongreject"', 'name="copied"'))
    folders = [*benchmarks.__path__, str(tmp_path)]
    monkeypatch.setattr(benchmarks, "__path__", folders)
    monkeypatch.setattr(benchmarks.__spec__, "submodule_search_locations", folders)
    assert Tasks()["copied"].hub_id == TASKS["strongreject"].hub_id and "copied" not in TASKS


def test_a_task_from_outside_is_imported_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "outside_tasks.py").write_text(
        "from dgr_lightning.tasks.task import Task\n"
        "MINE = Task('mine', 'benign', lambda row, index: None, {'evaluation': 'test'})\n"
        "OTHER = 'no task'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert TASKS["outside_tasks:MINE"].name == "mine" and "mine" not in TASKS
    with pytest.raises(UserError, match=r"tasks=outside_tasks:OTHER: expected a .*Task, found str"):
        TASKS["outside_tasks:OTHER"]
    with pytest.raises(UserError, match=r"tasks=nowhere:MINE: nowhere cannot be imported"):
        TASKS["nowhere:MINE"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "my.task"}, r"task 'my\.task': files are named after it"),
        ({"kind": "rude"}, r"task mine: kind='rude'; expected one of reasoning, harmful, benign"),
        ({"kind": "reasoning"}, r"task mine, of kind reasoning: name its grader"),
        ({"grader": "maths"}, r"task mine, of kind harmful: a judge reads its answers"),
    ],
)
def test_a_task_that_cannot_be_is_refused_where_it_is_defined(changes, message):
    with pytest.raises(UserError, match=message):
        Task(**({"name": "mine", "kind": "harmful", "read": lambda row, index: None, "splits": {}} | changes))
