"""How a question becomes the user's message: a template with `{question}`, and with `{options}` for multiple choice.

Readers of rows return the bare question (`Question`). The wording around it is a field of the task, which a published protocol
replaces by its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import NamedTuple

from dgr_lightning.hashes import sorted_by_hash

QUESTION, OPTIONS, LETTERS = "{question}", "{options}", "{letters}"
"""What a template may hold: the question, its options a line each (`A) …`), and their letters in one word (`ABCD`)."""

BOXED_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""The last line of reasoning prompts, in the wording that DeepSeek-R1's model card recommends."""

BOXED = f"{QUESTION}\n\n{BOXED_INSTRUCTION}"
BOXED_SOURCE = "the sentence that DeepSeek-R1's model card recommends, after the problem"

BARE_SOURCE = "the request alone"

SIMPLE_EVALS = (
    "Answer the following multiple choice question. The last line of your response should be of the following format: "
    f"'Answer: $LETTER' (without quotes) where LETTER is one of {LETTERS}. Think step by step before answering.\n\n"
    f"{QUESTION}\n\n{OPTIONS}"
)
SIMPLE_EVALS_SOURCE = "openai/simple-evals, common.py (MIT)"

CONTEXT_RULE = "\n\n---\n\n"
"""Between a context and the request that is about it, as in HarmBench's own baselines."""

_PLACEHOLDER = re.compile("|".join(map(re.escape, (QUESTION, OPTIONS, LETTERS))))


class Question(NamedTuple):
    """What a row of a benchmark asks.

    Attributes:
        part: what its id ends in; unique in its task and split.
        text: the question without any instruction. Two rows that share its words ask the same.
        gold: the right answer, of multiple choice its letter; None where there is nothing to grade.
        options: of multiple choice, in the order in which they are shown.
        context: a text that the question is about and that is shown before it.
        category: the data set's own name for the kind of question.
    """

    part: str
    text: str
    gold: str | None
    options: tuple[str, ...] = ()
    context: str = ""
    category: str | None = None


def fill(template: str, question: Question) -> str:
    """Returns the user's message. Braces that are no placeholder stay, such as those of `\\boxed{}`."""
    text = f"{question.context}{CONTEXT_RULE}{question.text}" if question.context else question.text
    letters = ascii_uppercase[: len(question.options)]
    values = {
        QUESTION: text,
        OPTIONS: "\n".join(f"{letter}) {option}" for letter, option in zip(letters, question.options, strict=True)),
        LETTERS: letters,
    }
    # In one pass: a question that holds a placeholder is a text like any other.
    return _PLACEHOLDER.sub(lambda found: values[found[0]], template)


def what_is_missing(template: str, *, choice: bool) -> str | None:
    """Returns the placeholder that a template lacks to pose a question, of multiple choice or not; None where it can."""
    return next((part for part in (QUESTION, *([OPTIONS] if choice else [])) if part not in template), None)


def ordered_options(question: str, right: str, wrong: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Returns the options in the order of a hash of the question and the option, and the letter of the right one.

    The order is the same in every copy of the data, whatever its order of rows, and another one for every question. A seed that
    all questions share would put every right answer on one letter, and one that runs on from question to question makes the
    order depend on which questions are asked.
    """
    options = tuple(sorted_by_hash([right, *wrong], lambda option: f"{question}\n{option}"))
    return options, ascii_uppercase[options.index(right)]
