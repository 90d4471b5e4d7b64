"""The tables of docs/evaluation.md are those of the registry and of conf/evaluation/."""

import re
from pathlib import Path

import pytest
import yaml

from dgr_lightning.config import EvaluationConfig
from dgr_lightning.installation import CONF
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.settings import settings_of
from dgr_lightning.tasks.table import task_table
from dgr_lightning.tasks.task import BadRow

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
READING = [name for name, task in TASKS.items() if task.make is None]


def test_the_page_has_the_tasks_of_the_registry():
    """Where this fails, paste what `python -m dgr_lightning.tasks.table` prints."""
    assert task_table() in PAGE.read_text(encoding="utf-8")


class Asked(dict):
    """A row that has every column, and remembers which it was asked for."""

    def __init__(self, **values: object) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def __contains__(self, column: object) -> bool:
        self.asked.add(str(column))
        return True

    def __getitem__(self, column: str) -> object:
        self.asked.add(column)
        return super().get(column, "text #### 1")

    def get(self, column: str, default: object = None) -> object:
        return self[column]


HARMFUL = {"label": "unsafe", "data_type": "adversarial_harmful", "prompt_harm_label": "harmful", "is_safe": False}
BENIGN = {"label": "safe", "data_type": "adversarial_benign", "prompt_harm_label": "unharmful"}


@pytest.mark.parametrize("name", READING)
def test_a_task_names_the_columns_that_it_reads(name):
    task = TASKS[name]
    answer = {"options": ["a", "b"], "answer": "A"} if name == "mmlu_pro" else {"answer": "#### 1"}
    row = Asked(**(BENIGN if task.kind == "benign" else HARMFUL), **answer, FunctionalCategory="standard")
    try:
        task.read(row, 0)
    except BadRow as error:
        pytest.fail(f"{name}: {error}")
    named = {spelling for column in task.columns for spelling in column.split("/")}
    firsts = {column.partition("/")[0] for column in task.columns}
    assert row.asked <= named, "a column that the table does not name"
    assert row.asked >= firsts, "a column that is not read"


def test_every_task_says_where_its_data_and_prompt_are_from():
    for name in READING:
        task = TASKS[name]
        assert task.page.startswith("https://") and task.licence and task.prompt_source and task.size and task.columns, name


@pytest.mark.parametrize("name", ["quick", "standard", "paper", "full", "micro"])
def test_the_page_says_what_a_set_costs(name):
    evaluation = EvaluationConfig(**yaml.safe_load((CONF / "evaluation" / f"{name}.yaml").read_text(encoding="utf-8")))

    def size(task: str) -> int:
        whole = TASKS[task].size or len(load_problems(task))
        return min(whole, evaluation.limit or whole)

    outputs = sum(size(task) * settings_of(evaluation, task).samples for task in evaluation.tasks)
    (row,) = re.findall(rf"^\| `evaluation={name}` .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert row.endswith(f"| {evaluation.max_new_tokens:,} | {outputs:,} |")
