"""Multiple choice: which letter an answer chooses."""

import time

import pytest

from dgr_lightning.scoring.grader import NO_ANSWER, UNPARSABLE
from dgr_lightning.scoring.graders.choice import GRADER, chosen_letter
from tests.helpers.answers import CHOICES


def test_outputs_of_many_forms_are_graded_as_a_person_would():
    with GRADER() as grader:
        grades = grader.grades([(output, gold) for output, gold, _ in CHOICES])
    assert [row for row, grade in zip(CHOICES, grades, strict=True) if grade.correct != row[2]] == []


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Answer: A. But wait, B fits better.\nAnswer: B", "B"),
        ("\\boxed{A} is wrong, so \\boxed{\\text{(E)}}", "E"),
        ("The answer is a number between 1 and 2.", None),
        ("The answer is A good one.", None),
        ("the answer is a", "A"),
        ("The answer could be A or B", None),
        ("Answer: A and B", None),
        ("A", "A"),
        ("A is for apple", None),
        ("**B. 12 joules**", "B"),
        ("Answer: Carbon", None),
    ],
)
def test_the_last_anchored_letter_counts_and_an_article_does_not(text, letter):
    assert chosen_letter(text) == letter


def test_outputs_without_a_letter_are_told_apart():
    with GRADER() as grader:
        grades = grader.grades([(None, "A"), ("Hm.", "A"), ("Answer: none of these", "A"), ("Answer: a", "A")])
    assert [grade.outcome for grade in grades] == [NO_ANSWER, NO_ANSWER, UNPARSABLE, "right"]
    assert [grade.boxed for grade in grades] == [None, None, None, True] and grades[-1].final == "A"


@pytest.mark.parametrize("piece", ["(", "answer is ", "\\boxed{", "** (", "option A is ", "answer ", " ", "*"])
def test_any_text_takes_little_time(piece):
    start = time.process_time()
    chosen_letter("answer: " + piece * (30_000 // len(piece)))
    assert time.process_time() - start < 3
