"""Grades short answers in words by a normalised exact match: case, articles, punctuation and Unicode forms do not count.

The normal form is SQuAD's (Rajpurkar et al. 2016, `evaluate-v1.1.py`), after Unicode's NFKC. The final answer is found as
for maths: in a box, or after "the answer is"; a text of few words is an answer as a whole. A gold answer may name
alternatives, one a line.
"""

from __future__ import annotations

import re
import unicodedata
from typing import ClassVar

from dgr_lightning.scoring.grader import NO_ANSWER, RIGHT, WRONG, EachAlone, Grade
from dgr_lightning.scoring.maths.final_answer import MAX_UNBOXED, Final, find_final
from dgr_lightning.scoring.maths.stated_answer import MAX_WORDS, stated_answer

MAX_SHOWN = 400
"""Characters of a final answer that a grade holds."""


class TextGrader(EachAlone):
    """Grades answers in words."""

    version: ClassVar[int] = 1

    def grade(self, answer: str | None, gold: str) -> Grade:
        """Returns the grade of a text after thinking; `gold` is the answer, or several, one a line."""
        return _grade(answer, gold)


def plain_text(text: str) -> str:
    """Returns a text in lower case, in one Unicode form, without LaTeX's styles, punctuation and English articles."""
    text = re.sub(r"\\(?:text|textbf|textit|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    text = unicodedata.normalize("NFKC", text).casefold()
    # Between digits a point, a comma or a hyphen is part of a number: 3.5 is not 35.
    kept = (
        character
        if not _is_mark(character) or (character in ".,:/" and text[i - 1 : i].isdigit() and text[i + 1 : i + 2].isdigit())
        else " "
        if character in "-/–—_"
        else "-" if character == "−" else ""
        for i, character in enumerate(text)
    )  # fmt: skip
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", "".join(kept))
    return " ".join(word for word in plain.split() if word not in ("a", "an", "the")) or plain.strip()


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS" and character not in "+<>=%"


def _grade(answer: str | None, gold: str) -> Grade:
    final = None if answer is None else _final(answer[-MAX_UNBOXED:].strip())
    if final is None or not final.text:
        return Grade(NO_ANSWER)
    targets = {plain_text(line) for line in gold.splitlines() if line.strip()}
    return Grade(RIGHT if plain_text(final.text) in targets else WRONG, final.boxed, final.text[:MAX_SHOWN])


def _final(text: str) -> Final | None:
    if "\\boxed" in text or "\\fbox" in text:
        return find_final(text)
    if "\n" not in text and len(text.split()) <= MAX_WORDS and ":" not in text and not re.search(r"(?i)\banswer\b", text):
        return Final(text, boxed=False)
    stated = stated_answer(text)
    return Final(text if stated is None else stated, boxed=False)


GRADER = TextGrader
