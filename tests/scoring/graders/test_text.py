"""Answers in words: a normalised exact match."""

import pytest

from dgr_lightning.scoring.grader import NO_ANSWER
from dgr_lightning.scoring.graders.text import GRADER, plain_text


@pytest.mark.parametrize(
    ("output", "gold", "right"),
    [
        ("Paris", "paris", True),
        ("The answer is Paris.", "Paris", True),
        ("\\boxed{\\text{The Eiffel Tower}}", "Eiffel tower", True),
        ("**Answer:** the United States", "United States", True),
        ("Ｐａｒｉｓ", "Paris", True),
        ("Answer: 3.5", "35", False),
        ("Answer: 1,000", "1000", True),
        ("London", "Paris", False),
        ("Answer: Neil Armstrong", "Neil A. Armstrong\nNeil Armstrong", True),
        ("The answer is Paris. No, it is London.", "Paris", True),
    ],
)
def test_case_articles_and_punctuation_do_not_count(output, gold, right):
    with GRADER() as grader:
        assert grader.grades([(output, gold)])[0].correct is right


def test_no_answer_is_a_class_of_its_own():
    with GRADER() as grader:
        grades = grader.grades([(None, "x"), ("", "x")])
    assert {grade.outcome for grade in grades} == {NO_ANSWER}


def test_an_article_alone_is_an_answer():
    assert plain_text("A") == "a" and plain_text("an apple") == "apple" and plain_text("e-mail") == "e mail"
