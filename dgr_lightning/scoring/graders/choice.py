r"""Grades multiple choice: compares the letter that an answer names with the gold letter.

A letter counts where something anchors it: a box, "Answer: C" (simple-evals' form among others), "the answer is (C)",
"option C is correct", a letter in bold, or an answer that is nothing but the letter. The last of them counts. The article
"a" and letters in running text do not.
"""

from __future__ import annotations

import re
from typing import ClassVar

from dgr_lightning.scoring.grader import NO_ANSWER, RIGHT, UNPARSABLE, WRONG, EachAlone, Grade
from dgr_lightning.scoring.maths.final_answer import MAX_UNBOXED

LETTERS = "ABCDEFGHIJ"

_OPEN = r"(?:[\s*_$`\"'({\[]|\\\(|\\(?:text|textbf|mathrm|mathbf|boxed|fbox|textrm|mathsf|bf|rm)\b|\\\{){0,10}"
# Of the letter: nothing that would make it part of a word, a formula or a list ("A and B", "A or B").
_END = (
    r"(?![A-Za-z0-9'’^_=+]|/(?!\w+>)|-[A-Za-z]|\s{0,3}(?:[=+×^>]|<(?!/)|\\(?:times|cdot|cap|cup)\b)"
    r"|[\s)}\]$*]{0,6}(?:,?\s?(?:and|or|nor|&|/)|,)[\s({*$]{0,6}[A-J]\b)"
)
_UPPER = rf"(?P<letter>[A-J]){_END}"
# A small letter, or an A that may be the article, only where nothing that it would belong to follows.
_ALONE = r"(?=[\s)}\]$*_`\"'.:]{0,12}(?:$|\n|[.!](?:\s|$)|because\b|since\b))"
_OPTION = r"(?:(?:option|choice|letter|answer|statement)s?\b\s?)?"


def _anchored(anchor: str, article: bool) -> list[re.Pattern[str]]:
    """Returns patterns of an anchor with its letter; where an article may follow the anchor, an A has to stand alone."""
    upper = rf"(?P<letter>[B-J]|A(?![\s]+[a-z])){_END}" if article else _UPPER
    return [
        re.compile(rf"(?i:{anchor}){_OPEN}(?i:{_OPTION}){_OPEN}{upper}", re.MULTILINE),
        re.compile(rf"(?i:{anchor}){_OPEN}(?i:{_OPTION}){_OPEN}(?P<letter>[A-Ja-j]){_ALONE}", re.MULTILINE),
    ]


_SUBJECT = r"\b(?:answer|choice|option|response|solution|selection)\b"
_BOX = re.compile(rf"\\(?:boxed|fbox)\s?\{{{_OPEN}(?i:{_OPTION}){_OPEN}(?:{_UPPER}|(?P<small>[a-j])(?=[\s)}}\]$.]{{0,6}}\}}))")
_ANCHORS = (
    *_anchored(rf"(?:{_SUBJECT}|答案|選択肢)[\s*]{{0,6}}[:：]", article=False),
    *_anchored(
        rf"{_SUBJECT}[^.\n:]{{0,40}}?[*\s]{{0,4}}(?:\bis\b|\bmust be\b|\bwould be\b|\bshould be\b|=)\s?[:：]?", article=True
    ),
    *_anchored(
        r"(?:答案|选项|選項)(?:应该|应当|應該)?(?:是|为|為|选|選)\s?[:：]?|(?:故选|因此选|所以选|选择)\s?[:：]?", article=False
    ),
    *_anchored(r"\b(?:choose|select|pick|go(?:ing)? with)\b", article=True),
    *_anchored(r"^[ \t]{0,8}\#{2,4}[ \t]{0,4}", article=True),
    *_anchored(r"<answer>", article=False),
)
_OTHERS = (
    re.compile(
        rf"(?i:\b(?:option|choice|answer)\b)\s?{_OPEN}{_UPPER}[\s)}}\]$*.:]{{0,8}}"
        r"(?i:is|are|must be)\s+(?:the\s+)?(?i:correct|right|best|true)"
    ),
    re.compile(
        r"(?<![A-Za-z0-9])\(?(?P<letter>[A-J])\)?[\s*]{1,4}"
        r"(?i:is (?:the )?(?:correct|right|best)(?: answer| option| choice)?)(?! in| to)"
    ),
    re.compile(r"\*\*\s?\(?(?P<letter>[A-J])\)?(?:[.:)]\s?[^*\n]{0,200}|\s?)\*\*"),
)
_WHOLE = re.compile(rf"{_OPEN}(?i:{_OPTION})\(?(?P<letter>[A-Ja-j])(?:[\s)}}\]$*.:`\"']*|[).:][ \t][^\n]{{0,300}})\s*")
_ANY_ANCHOR = re.compile(rf"(?i:{_SUBJECT}[\s*]{{0,6}}[:：]|{_SUBJECT} is\b|\\boxed\s?\{{)")


class ChoiceGrader(EachAlone):
    """Grades the letters of multiple choice; `Grade.boxed` is True: a letter that nothing anchors does not count."""

    version: ClassVar[int] = 1

    def grade(self, answer: str | None, gold: str) -> Grade:
        """Returns the grade of a text after thinking; `gold` is a letter."""
        return _grade(answer, gold)


def chosen_letter(text: str) -> str | None:
    """Returns the letter that a text ends up choosing, as a capital; None where none is anchored."""
    text = text[-MAX_UNBOXED:].strip()
    if whole := _WHOLE.fullmatch(text):
        return whole["letter"].upper()
    found = [match for pattern in (_BOX, *_ANCHORS, *_OTHERS) for match in pattern.finditer(text)]
    if not found:
        return None
    last = max(found, key=lambda match: match.end("letter") if match["letter"] else match.end("small"))
    return (last["letter"] or last["small"]).upper()


def _grade(answer: str | None, gold: str) -> Grade:
    if answer is None or not answer.strip():
        return Grade(NO_ANSWER)
    target = chosen_letter(gold) or gold.strip().upper()
    letter = chosen_letter(answer)
    if letter is None:
        # It states an answer, which is no letter: "Answer: none of these".
        return Grade(UNPARSABLE if _ANY_ANCHOR.search(answer[-MAX_UNBOXED:]) else NO_ANSWER)
    return Grade(RIGHT if letter == target else WRONG, True, letter)


GRADER = ChoiceGrader
