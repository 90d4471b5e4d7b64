"""Questions become messages by a template: placeholders are filled once, and options keep one order in every copy."""

from collections import Counter

import pytest

from dgr_lightning.tasks.prompt import BOXED, SIMPLE_EVALS, Question, fill, ordered_options, what_is_missing

CHOICE = Question("0", "Which is even?", "B", ("one", "two", "three"))


def test_what_is_no_placeholder_stays_and_a_question_is_never_a_template():
    assert fill("{question} {x} \\boxed{}", Question("0", "a {options} {question} \\d", None)) == (
        "a {options} {question} \\d {x} \\boxed{}"
    )


def test_the_wording_of_simple_evals_is_theirs():
    """`QUERY_TEMPLATE_MULTICHOICE` of openai/simple-evals, common.py, for four options."""
    assert fill(SIMPLE_EVALS, Question("0", "Q?", "A", ("w", "x", "y", "z"))) == (
        "Answer the following multiple choice question. The last line of your response should be of the following format: "
        "'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering.\n\nQ?\n\n"
        "A) w\nB) x\nC) y\nD) z"
    )
    assert "one of ABC." in fill(SIMPLE_EVALS, CHOICE) and fill(SIMPLE_EVALS, CHOICE).endswith("A) one\nB) two\nC) three")


def test_a_context_stands_before_the_question_and_inside_the_wording():
    assert fill("<{question}>", Question("0", "Sum it up.", None, context="A text.")) == "<A text.\n\n---\n\nSum it up.>"


def test_options_have_one_order_whatever_the_order_of_the_wrong_ones():
    orders = {ordered_options("Q?", "right", wrong) for wrong in (["a", "b", "c"], ["c", "a", "b"], ["b", "c", "a"])}
    assert len(orders) == 1
    options, letter = orders.pop()
    assert set(options) == {"right", "a", "b", "c"} and options["ABCD".index(letter)] == "right"


def test_right_answers_are_spread_over_the_letters_and_other_questions_change_none():
    letters = [ordered_options(f"question {i}", f"right {i}", ["a", "b", "c"])[1] for i in range(2000)]
    counts = Counter(letters)
    assert set(counts) == set("ABCD") and all(430 < count < 570 for count in counts.values()), counts


@pytest.mark.parametrize(
    ("template", "choice", "missing"),
    [
        (BOXED, False, None),
        (SIMPLE_EVALS, True, None),
        (BOXED, True, "{options}"),
        ("Answer.", False, "{question}"),
    ],
)
def test_a_template_says_what_it_lacks(template, choice, missing):
    assert what_is_missing(template, choice=choice) == missing
