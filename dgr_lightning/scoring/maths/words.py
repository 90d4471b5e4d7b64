"""Answers in words: names, yes and no, days, "no solution"; equal however they are capitalised and set."""

from __future__ import annotations

import re

from dgr_lightning.scoring.maths.answer_form import is_product, is_words

_SAME = (
    (
        "no solution",
        "no solutions",
        "none",
        "no real solution",
        "no real solutions",
        "empty set",
        "the empty set",
        "\\emptyset",
        "\\{\\}",
    ),
    ("does not exist", "dne", "undefined", "not defined"),
    ("yes", "true"),
    ("no", "false"),
    ("infinite", "infinitely many", "infinitely many solutions", "infinity"),
    ("all real numbers", "all reals", "real numbers", "\\mathbb{r}"),
)
_CANONICAL = {spelling: names[0] for names in _SAME for spelling in names}
_ARTICLE = re.compile(r"^(?:the|an?) (?=\w{2})")


def plain_words(text: str) -> str:
    r"""Returns words in lower case, without `\text`, full stops, ordinal endings and an article: one spelling of one thing."""
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"(?<=\d)(?:st|nd|rd|th)\b", "", text)
    text = re.sub(r"[\"'`]|\.(?!\d)|(?<=[A-Za-z]),|\s+", lambda found: " " if found[0].isspace() else "", text).strip()
    text = " ".join(text.casefold().split())
    text = _ARTICLE.sub("", text)
    return _CANONICAL.get(text, text)


def same_words(answer: str, gold: str) -> tuple[bool, bool]:
    """Returns whether two normal forms are the same words, and whether they are to be compared as words at all.

    A gold answer in words is. `abc` may also be a product; then only an answer that is the same word says so. A gold letter is
    a choice as well: `(C) 12` is C.
    """
    left, right = plain_words(answer), plain_words(gold)
    if re.fullmatch("[A-J]", gold):
        chosen = re.match(r"(?:\\text\{)?\s*\(?([A-J])(?:[).:}]|$)", answer)
        return bool(chosen and chosen[1] == gold), bool(chosen)
    if left == right and (len(right) > 1 or answer == gold):  # x is not X
        return True, True
    if right in _CANONICAL.values():
        return False, True
    if is_words(gold) or (r"\text" in gold and re.search("[a-z]{3}", gold.replace("\\text", ""))):
        return False, not is_product(gold)
    return False, False
