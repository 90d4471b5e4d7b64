"""The final answer in a text: which part of the text it is."""

import time

import pytest

from dgr_lightning.scoring.maths.final_answer import final_answer, find_final


@pytest.mark.parametrize(
    ("text", "final"),
    [
        (r"first \boxed{3}, no: \boxed{4}.", "4"),
        (r"$\boxed{\frac{1}{2^{3}}}$ done", r"\frac{1}{2^{3}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\fbox{7}", "7"),
        (r"\boxed {8}", "8"),
        (r"so $\boxed 5$.", "5"),
        (r"\boxed{3} and then \boxed{\frac{1}{2}", None),
        (r"\boxed", None),
        (r"\boxed{}", ""),
        (r"So $\boxed{7}$. \boxed{}", "7"),
        (r"\boxed{5} \text{ and } \boxed{7}", "5, 7"),
        (r"$x = \boxed{5}$ or $x = \boxed{-2}$", "5, -2"),
        (r"\boxed{5}, \boxed{5}", "5"),
        ("It is \\boxed{5}.\n\n\\boxed{6}", "6"),
    ],
)
def test_the_last_box_is_the_final_answer(text, final):
    assert final_answer(text) == final


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("She has 3 + 4 = 7 apples.", "3 + 4 = 7"),
        ("It costs $1,234.50.", "1,234.50"),
        ("She makes $9 * 2 = $18 per day.", "18"),
        ("a share of 3/4.", "3/4"),
        ("The answer is 42. I checked it twice, in 2 ways.", "42"),
        (r"Final Answer: The final answer is $\frac{3}{4}$. I hope it is correct.", r"\frac{3}{4}"),
        ("**Answer:** 540 meters", "540 meters"),
        ("9 * 2 = 18\n#### 18", "18"),
        ("So the total is **42**, which took 3 steps.", "42"),
        (r"Thus the smallest value is $-\frac{1}{4}$, attained at $x=\frac12$.", r"-\frac{1}{4}"),
        ("So the sum is\n\\[ x = 5. \\]", "x = 5"),
        ("The largest $n$ is 34.", "34"),
        ("\\begin{align*} x &= 2 + 3 \\\\ &= 5. \\end{align*}", "= 5"),
        ("The greatest divisor is 12.\n\nThis completes the solution.", "12"),
        ("Answer: 5\n\nWait. Answer: 6", "6"),
        (r"\frac{10}{9}", r"\frac{10}{9}"),
        ("none", None),
        ("", None),
    ],
)
def test_without_a_box_the_answer_is_what_the_text_says_it_is(text, final):
    assert final_answer(text) == final
    assert final is None or not find_final(text).boxed


@pytest.mark.parametrize(
    "piece", ["$", "\\[", "the answer is ", "**", "\\text{", "9", "answer: ((((", "It is 5. ", "\\boxed{", " "]
)
def test_finding_an_answer_takes_little_time_whatever_the_text(piece):
    text = piece * (100_000 // len(piece))
    start = time.process_time()
    find_final(text)
    assert time.process_time() - start < 3
