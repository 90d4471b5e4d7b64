"""Maths grading: which answers are equal, and that model text can neither hang the grader nor run."""

import json
import os
import signal
import subprocess
import sys
import time
from random import Random

import pytest

from dgr_lightning.scoring.grader import GRADERS, NO_ANSWER, RIGHT, TIMEOUT, UNPARSABLE, WRONG
from dgr_lightning.scoring.graders.maths import MAX_CHARACTERS, MAX_SHOWN, PAIRS_A_WORKER, MathsGrader
from tests.helpers.answers import DIFFERENT, EQUIVALENT, OUTPUTS

ENDLESS = r"\sum_{n=1}^{10^{9}} n^{n}"
"""Computed by sympy term by term."""

TOWER = "9^{9^{9^{9^{9}}}}"


def right(grader, answer, gold):
    """Returns whether a grader finds an answer right."""
    return grader.grade(answer, gold).correct


@pytest.fixture(scope="module")
def grader():
    with MathsGrader() as grader:
        yield grader


@pytest.mark.parametrize("kind", EQUIVALENT)
def test_right_answers_in_other_words_are_right(grader, kind):
    pairs = EQUIVALENT[kind]
    grades = grader.grades([(f"So we find $\\boxed{{{answer}}}$.", gold) for gold, answer in pairs])
    assert [(pair, grade.outcome) for pair, grade in zip(pairs, grades, strict=True) if not grade.correct] == []


@pytest.mark.parametrize("kind", DIFFERENT)
def test_wrong_answers_are_wrong(grader, kind):
    pairs = DIFFERENT[kind]
    grades = grader.grades([(f"So we find $\\boxed{{{answer}}}$.", gold) for gold, answer in pairs])
    assert [(pair, grade.outcome) for pair, grade in zip(pairs, grades, strict=True) if grade.correct] == []


def test_the_tables_are_as_large_as_the_docs_say():
    assert sum(map(len, EQUIVALENT.values())) >= 120 and sum(map(len, DIFFERENT.values())) >= 60 and len(OUTPUTS) >= 150


def test_outputs_of_many_forms_are_graded_as_a_person_would(grader):
    grades = grader.grades([(output, gold) for output, gold, _ in OUTPUTS])
    assert [row for row, grade in zip(OUTPUTS, grades, strict=True) if grade.correct != row[2]] == []


def test_outcomes_are_told_apart_and_outputs_without_a_box_are_counted(grader):
    outputs = {RIGHT: "\\boxed{5}", WRONG: "The answer is 6.", NO_ANSWER: "I cannot say.", UNPARSABLE: "\\boxed{\\oops{(}}"}
    grades = grader.grades([(output, "5") for output in outputs.values()])
    assert [grade.outcome for grade in grades] == list(outputs)
    assert [grade.boxed for grade in grades] == [True, False, None, True]


def test_the_registry_knows_the_graders_by_the_names_of_their_files():
    assert (
        {"choice", "maths", "text"} <= set(GRADERS.names()) and GRADERS.get("maths") is MathsGrader and MathsGrader.version == 2
    )


def test_no_answer_is_wrong(grader):
    assert not right(grader, None, "5") and not right(grader, "", "5") and not right(grader, "\\boxed{5", "5")


def test_the_miniatures_answer_is_read(grader):
    assert right(grader, "the last digit is \\boxed{4} .", "4") and not right(grader, "the last digit is \\boxed{5} .", "4")


def test_plain_answers_need_no_process():
    grader = MathsGrader()
    assert (
        right(grader, "\\boxed{1,000}", "1000")
        and not right(grader, "\\boxed{8}", "9")
        and not right(grader, "\\boxed{x}", "even")
    )
    assert [worker.pid for worker in grader._workers] == [None]


@pytest.mark.slow
def test_a_computation_without_end_is_stopped_counted_and_not_tried_again():
    with MathsGrader(seconds=1.0) as grader:
        assert right(grader, "\\boxed{\\int_0^1 x dx}", "1/2"), "math-verify is loaded"
        start = time.monotonic()
        assert grader.grade(f"\\boxed{{{ENDLESS}}}", "x+1").outcome == TIMEOUT
        assert time.monotonic() - start < 15
        start = time.monotonic()
        assert grader.grade(f"\\boxed{{{ENDLESS}}}", "x+1").outcome == TIMEOUT
        assert time.monotonic() - start < 0.5, "computed again"
        assert right(grader, "\\boxed{\\int_0^1 2x dx}", "1"), "grading goes on"


@pytest.mark.slow
def test_an_endless_answer_among_many_costs_nobody_else_a_verdict(monkeypatch):
    monkeypatch.setattr("dgr_lightning.scoring.graders.maths.usable_cores", lambda: 2)
    number, advanced = 3 * PAIRS_A_WORKER, []
    pairs = [(f"\\boxed{{x + {i}}}", f"{i + i % 2}+x") for i in range(number)]
    pairs.insert(5, (f"\\boxed{{{ENDLESS}}}", "x+1"))
    with MathsGrader(seconds=1.0) as grader:
        outcomes = [grade.outcome for grade in grader.grades(pairs, advanced.append)]
        assert outcomes.pop(5) == TIMEOUT and outcomes == [WRONG if i % 2 else RIGHT for i in range(number)]
        assert sum(advanced) == number + 1 and sum(worker.pid is not None for worker in grader._workers) == 2


def test_towers_of_powers_cost_next_to_nothing(grader):
    start = time.process_time()
    assert grader.grade(f"\\boxed{{{TOWER}}}", "x+1").outcome == WRONG and right(grader, f"\\boxed{{{TOWER}}}", TOWER)
    assert time.process_time() - start < 1


def test_a_long_answer_is_compared_as_text_alone(grader):
    text = "1" + "+1" * MAX_CHARACTERS
    assert not right(grader, f"\\boxed{{{text}}}", str(MAX_CHARACTERS + 1))
    grade = grader.grade(f"\\boxed{{{text} }}", text)
    assert grade.correct and len(grade.final) == MAX_SHOWN
    half = "+".join(f"x^{i}" for i in range(1, 120))
    assert len(half) > 400 and right(grader, f"\\boxed{{{half}}}", "+".join(half.split("+")[::-1]))
    start = time.monotonic()
    assert not right(grader, "\\boxed{" + "{" * 1_000_000, "5") and not right(grader, "9" * 1_000_000, "5")
    assert time.monotonic() - start < 15


def test_model_text_is_not_run(grader, tmp_path):
    mark = tmp_path / "ran"
    for text in (
        f"__import__('os').mkdir('{mark}')",
        f"\\text{{__import__('os').mkdir('{mark}')}} + 1",
        "exit()",
        "\x00\ud800",
    ):
        assert not right(grader, f"\\boxed{{{text}}}", "x+1")
    assert not mark.exists() and right(grader, "\\boxed{1+x}", "x+1")


def test_the_process_dies_with_a_killed_parent(tmp_path):
    script = (
        "import sys; from dgr_lightning.scoring.graders.maths import MathsGrader; g = MathsGrader();"
        "assert g.grade('\\\\boxed{1+x}', 'x+1').correct;"
        "print(g._workers[0].pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for pipe in (parent.stdin, parent.stdout):
        pipe.close()
    for _ in range(100):
        try:
            # Where nobody collects orphans the dead one stays in the process table.
            with open(f"/proc/{worker}/stat") as stat:
                state = stat.read().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):  # it went before, or while, it was read
            return
        if state == "Z":
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the grading process outlived its parent")


def test_the_process_imports_math_verify_and_nothing_heavy():
    script = (
        "import sys, dgr_lightning.scoring.maths.worker, math_verify;"
        "print([m for m in ('torch', 'transformers', 'lightning', 'datasets', 'hydra') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def golds(shared, name):
    with open(shared / f"data/{name}/test.jsonl", encoding="utf-8") as file:
        return [json.loads(line)["answer"] for line in file]


FORMS = {
    "in a box": "Hence $\\boxed{{{}}}$.",
    "in a sentence": "Therefore, the answer is ${}$.",
    "in a last formula": "We conclude that the value is ${}$",
    "displayed": "Thus\n\\[ {} \\]\nas desired.",
    "after Answer:": "We need 3 steps.\nAnswer: {}",
    "in bold": "The result is **${}$**.",
    "with a unit": "\\boxed{{{}\\text{{ units}}}}",
}


@pytest.mark.parametrize("name", ["aime24", *(pytest.param(name, marks=pytest.mark.slow) for name in ("math500", "gsm8k"))])
def test_every_gold_answer_is_right_and_those_of_other_problems_are_not(grader, shared, name):
    answers = [answer.rpartition("####")[2].strip() for answer in golds(shared, name)]
    assert len(answers) == {"math500": 500, "gsm8k": 1319, "aime24": 30}[name]
    for form in FORMS.values():
        texts = [form.format(answer) for answer in answers]
        dfrac = [text.replace("\\frac", "\\dfrac").replace("(", "\\left(").replace(")", "\\right)") for text in texts]
        for written in (texts, dfrac):
            assert [gold for gold, grade in zip(answers, grader.grades(list(zip(written, answers, strict=True))), strict=True)
                    if not grade.correct] == [], form  # fmt: skip
    moved = [
        (gold, other) for gold, other in zip(answers, Random(0).sample(answers, len(answers)), strict=True) if gold != other
    ]
    taken = [pair for pair in moved if right(grader, f"\\boxed{{{pair[1]}}}", pair[0])]
    assert len(taken) <= 0.005 * len(moved), taken
