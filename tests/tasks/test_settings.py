"""Kinds and tasks with settings of their own: what wins over what, and what is refused before anything is generated."""

import pytest

from dgr_lightning.config import EvaluationConfig
from dgr_lightning.errors import UserError
from dgr_lightning.tasks.settings import check_settings, drop_overridden, settings_of

TASKS = ["gsm8k", "math500", "strongreject"]


def section(**changes) -> EvaluationConfig:
    return EvaluationConfig(**{"tasks": TASKS, "max_new_tokens": 100} | changes)


def test_a_task_wins_over_its_kind_and_the_kind_over_the_section():
    evaluation = section(
        by_kind={"reasoning": {"samples": 4, "temperature": 1}, "harmful": {"temperature": 0, "prefill": "Sure"}},
        by_task={"math500": {"samples": 8, "limit": 3}},
    )
    gsm8k, math500, harmful = (settings_of(evaluation, task) for task in TASKS)
    assert (gsm8k.samples, gsm8k.temperature, gsm8k.limit) == (4, 1.0, None)
    assert (math500.samples, math500.temperature, math500.limit) == (8, 1.0, 3)
    assert (harmful.samples, harmful.temperature, harmful.prefill) == (1, 0.0, "Sure")
    assert {settings.max_new_tokens for settings in (gsm8k, math500, harmful)} == {100}
    check_settings(evaluation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"by_kind": {"harmfull": {}}}, r"evaluation\.by_kind\.harmfull: no kind of task 'harmfull'\. Did you mean harmful\?"),
        ({"by_task": {"gsm9k": {}}}, r"evaluation\.by_task\.gsm9k: no task 'gsm9k'\. Did you mean gsm8k\?"),
        ({"prompts": {"gsm9k": "{question}"}}, r"evaluation\.prompts\.gsm9k: no task 'gsm9k'\. Did you mean gsm8k\?"),
        (
            {"by_kind": {"harmful": {"temperatur": 0}}},
            r"harmful\.temperatur: no setting of a task\. Did you mean temperature\?",
        ),
        ({"by_kind": {"harmful": {"seed": 3}}}, r"harmful\.seed: no setting of a task\..*may have its own samples, limit,"),
        ({"by_kind": {"harmful": {"temperature": -1}}}, r"evaluation\.by_kind\.harmful\.temperature=-1: expected a number"),
        ({"by_task": {"math500": {"samples": "many"}}}, r"evaluation\.by_task\.math500\.samples=many: expected a whole number"),
        ({"by_kind": {"harmful": 3}}, r"evaluation\.by_kind\.harmful=3: expected settings, such as .*{temperature: 0"),
        (
            {"samples": 2, "temperature": 0.0},
            r"evaluation\.samples=2 with evaluation\.temperature=0: greedy .* same text 2 times",
        ),
        (
            {"samples": 2, "by_kind": {"harmful": {"temperature": 0}}},
            r"evaluation\.samples=2 with evaluation\.by_kind\.harmful\.temperature=0.*Give evaluation\.samples=1",
        ),
        ({"thinking_tokens": 100}, r"thinking_tokens=100 with evaluation\.max_new_tokens=100: nothing is left for an answer"),
        ({"prompts": {"gsm8k": "Solve it."}}, r"evaluation\.prompts\.gsm8k: it does not hold {question}"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_with_what_to_write(changes, message):
    with pytest.raises(UserError, match=message):
        check_settings(section(**changes))


def test_settings_of_tasks_that_are_not_chosen_wait_for_them():
    check_settings(section(by_task={"xstest": {"samples": 3}}, prompts={"xstest": "{question}", "gsm8k": None}))


def test_the_command_line_wins_unless_it_says_otherwise_of_a_kind_or_task():
    def composed():
        kinds = {"harmful": {"temperature": 0, "max_new_tokens": 9}, "reasoning": {"temperature": 1}}
        return {"by_kind": kinds, "by_task": {"gsm8k": {"max_new_tokens": 5}}}

    evaluation = composed()
    drop_overridden(evaluation, {"evaluation.temperature", "evaluation", "seed"})
    assert evaluation == {
        "by_kind": {"harmful": {"max_new_tokens": 9}, "reasoning": {}},
        "by_task": {"gsm8k": {"max_new_tokens": 5}},
    }
    evaluation = composed()
    drop_overridden(evaluation, {"evaluation.max_new_tokens", "evaluation.by_task.gsm8k.max_new_tokens"})
    assert (
        evaluation["by_task"] == {"gsm8k": {"max_new_tokens": 5}} and "max_new_tokens" not in evaluation["by_kind"]["harmful"]
    )
    evaluation = composed()
    drop_overridden(evaluation, {"evaluation.max_new_tokens", "evaluation.by_kind"})
    assert evaluation["by_kind"] == composed()["by_kind"]
    for odd in ({"by_kind": None, "by_task": {"gsm8k": 3}}, {"by_kind": 3, "by_task": "x"}):  # the schema says what is wrong
        before = dict(odd)
        drop_overridden(odd, {"evaluation.temperature"})
        assert odd == before
