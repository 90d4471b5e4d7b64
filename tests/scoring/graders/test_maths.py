"""Maths grading: which answers are equal, and that model text can neither hang the grader nor run."""

import json
import os
import signal
import subprocess
import sys
import time
from random import Random

import pytest

from dgr_lightning.scoring.final_answer import normalise
from dgr_lightning.scoring.grader import TIMEOUT
from dgr_lightning.scoring.graders.maths import MAX_CHARACTERS, MathsGrader

TOWER = "9^{9^{9^{9^{9}}}}"


def right(grader, answer, gold):
    """Returns whether a grader finds an answer right."""
    return grader.grade(answer, gold).correct


@pytest.fixture(scope="module")
def grader():
    with MathsGrader() as grader:
        yield grader


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("25", "025"),
        ("025", "25"),
        ("27", "27.0"),
        ("2125", "2,125"),
        ("0.25", r"25\%"),
        ("25", r"25\%"),
        (r"\frac{14}{3}", r"4\frac{2}{3}"),
        (r"\frac{1}{2}", "0.5"),
        ("1,-2", "-2, 1"),
        (r"3\sqrt{13}", r"\sqrt{117}"),
        ("x=5", "5"),
        ("5", "x = 5"),
        (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
        ("(a+5)(b+2)", "ab + 2a + 5b + 10"),
        ("y = 2x + 3", "y = 3 + 2x"),
        (r"x \in [-2,7]", "[-2, 7]"),
        ("4210_{5}", "4210_5"),
        (r"\text{(C)}", "C"),
        (r"\text{east}", r"\text{East}"),
        (r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}", r"\begin{bmatrix} -1 & 0 \\ 0 & -1 \end{bmatrix}"),
    ],
)
def test_right_answers_in_other_words_are_right(grader, gold, answer):
    assert right(grader, f"So we find $\\boxed{{{answer}}}$.", gold)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5", "-5"),
        ("5", "5x"),
        ("25", "0.25"),
        ("12\\pi", "12"),
        ("52_8", "52_9"),
        ("42", "52_8"),
        ("(3,4]", "(3,4)"),
        ("(2,4)", "(4,2)"),
        ("3, 5, 7", "3, 5"),
        (r"\text{even}", r"\text{neve}"),
        (r"\text{(C)}", "D"),
        ("3", "3 or 4"),
        ("6+9i", "6-9i"),
        ("1", "1/0"),
        ("1", ""),
    ],
)
def test_wrong_answers_are_wrong(grader, gold, answer):
    assert not right(grader, f"So we find $\\boxed{{{answer}}}$.", gold)


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
    assert grader._worker.pid is None


def test_a_computation_without_end_is_killed_counted_and_not_tried_again():
    with MathsGrader(seconds=3.0) as grader:
        assert right(grader, "\\boxed{1+x}", "x+1")
        start = time.monotonic()
        assert not right(grader, f"\\boxed{{{TOWER}}}", "x+1")
        assert time.monotonic() - start < 15
        start = time.monotonic()
        assert not right(grader, f"\\boxed{{{TOWER}}}", "x+1")
        assert time.monotonic() - start < 2.5, "computed again"
        assert grader.grade(f"\\boxed{{{TOWER}}}", "x+1").outcome == TIMEOUT
        assert right(grader, "\\boxed{2+x}", "x+2"), "grading goes on with a new process"


def test_a_long_answer_is_wrong_and_never_computed(grader):
    text = "1" + "+1" * (MAX_CHARACTERS // 2)
    assert not right(grader, f"\\boxed{{{text}}}", str(MAX_CHARACTERS // 2 + 1))
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
        "print(g._worker.pid, flush=True); sys.stdin.read()"
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
        "import sys, dgr_lightning.scoring.maths_worker, math_verify;"
        "print([m for m in ('torch', 'transformers', 'lightning', 'datasets', 'hydra') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def golds(shared, name):
    with open(shared / f"data/{name}/test.jsonl", encoding="utf-8") as file:
        return [json.loads(line)["answer"] for line in file]


def test_every_gold_answer_of_math500_is_right_and_others_are_not(grader, shared):
    answers = golds(shared, "math500")
    assert len(answers) == 500
    assert all(right(grader, f"Hence $\\boxed{{{answer}}}$.", answer) for answer in answers)
    # 'x=5' answered with 5 is right; degrees, dollars and units are not looked at.
    shuffled = Random(0).sample(answers, 500)
    taken = [(a, b) for a, b in zip(answers, shuffled, strict=True) if a != b and right(grader, f"\\boxed{{{b}}}", a)]
    assert len(taken) <= 2, taken


def test_math_verify_itself_reads_every_gold_answer_of_math500(grader, shared):
    assert all(grader._compared(normalise(answer), normalise(answer)) for answer in golds(shared, "math500"))


def test_every_gold_answer_of_gsm8k_is_right_boxed_or_in_a_sentence(grader, shared):
    written = [answer.rpartition("####")[2].strip() for answer in golds(shared, "gsm8k")]
    assert len(written) == 1319
    for answer in written:
        gold = answer.replace(",", "")
        assert right(grader, f"\\boxed{{{answer}}}", gold) and right(grader, f"So there are {answer} of them.", gold)
        assert not right(grader, f"\\boxed{{{gold}1}}", gold)
