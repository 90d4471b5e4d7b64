"""The final answer in a text, and its normal form: maths grading compares these before it computes anything.

The normal form follows MATH's own (Hendrycks et al. 2021, `math_equivalence.py`): spacing, styles, dollars, per cent, degrees
and units do not change the value. Nothing here is evaluated, and finding the answer is linear in the text.
"""

from __future__ import annotations

import re
from fractions import Fraction


def final_answer(text: str) -> str | None:
    """Returns the content of the last `\\boxed{…}` of a text, nested braces included; without a box, its last number.

    A last box that is never closed is no answer: the text ended inside it. None for a text with neither box nor number.
    """
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        numbers = _NUMBER_IN_TEXT.findall(text)
        return numbers[-1] if numbers else None
    rest = text[start:].removeprefix("\\boxed").removeprefix("\\fbox").lstrip()
    if not rest.startswith("{"):
        bare = re.match(r"[^\s$]+", rest)  # \boxed 5
        return bare[0].rstrip(".,;") if bare else None
    depth = position = 0
    while position < len(rest):
        character = rest[position]
        if character == "\\":
            position += 1  # \{ and \} group nothing
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return rest[1:position].strip()
        position += 1
    return None


def normalise(text: str) -> str:
    """Returns a final answer in its normal form, still LaTeX: `\\dfrac12\\text{ cm}` becomes `\\frac{1}{2}`."""
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = " ".join(text.split()).rstrip(". ")
    for unit in (_TEXT_UNIT, _WORD_UNIT):
        text = unit.sub(r"\1", text)
    text = _WRAPPED.sub(r"\1", text).strip()
    text = re.sub(r"^\(([A-Za-z])\)$", r"\1", text)  # (C), as multiple choice is answered
    return text.replace(",", "").replace(" ", "") if _THOUSANDS.fullmatch(text) else text


def parse_number(text: str) -> Fraction | None:
    """Returns the value of a normal form that is a whole number, a decimal, a/b, \\frac{a}{b} or mixed; None for any other."""
    if plain := _PLAIN.fullmatch(text):
        sign, value, divisor = plain[1], Fraction(plain[2]), int(plain[3] or 1)
    elif mixed := _MIXED.fullmatch(text):
        sign, divisor = mixed[1], int(mixed[4])
        value = Fraction(int(mixed[2] or 0) * divisor + int(mixed[3]))
    else:
        return None
    if divisor == 0:
        return None
    return (-value if sign == "-" else value) / divisor


def numeral(text: str) -> tuple[str, str | None]:
    """Returns the digits and the base of a normal form such as 52_8 or 1A_{16}; the base is None where none is written."""
    based = _BASED.fullmatch(text)
    return (based[1].upper(), based[2] or based[3]) if based else (text, None)


def is_words(text: str) -> bool:
    """Whether a normal form is a name, a word or a choice, to be compared as such: symbolic maths reads `even` as e·v·e·n."""
    return _WORDS.fullmatch(text) is not None


_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("[−–]", "-"),
        (r"\{,\}", ","),
        # (?<!\\) spares the row ends of matrices: \\ is no backslash before a blank.
        (r"(?<!\\)\\!\s*", ""),
        (r"(?<=\d)\\,(?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\[,;:> ]|~|\\q?quad\b", " "),
        (r"\\(?:left|right)\b\.?|\\(?:displaystyle|textstyle)\b", ""),
        (r"\\(?:mbox|mathrm|mathbf|textbf|textrm|textit|textnormal|text)\s*\{", r"\\text{"),
        (r"\\?\$|\\?%|°|\\degree\b|\s*\^\s*(?:\\circ\b|\{\s*\\circ\s*\})", ""),
        (r"\\[dtc]?frac\s*", r"\\frac"),
        (r"\\frac(\w)", r"\\frac{\1}"),
        (r"(\\frac\{[^{}]*\})\s*(\w)", r"\1{\2}"),
        (r"(\\frac\{[^{}]*\})\s+\{", r"\1{"),
    )
)
# 864\text{ inches}^2; not 4210_\text{five}, and not a text that is all there is.
_TEXT_UNIT = re.compile(r"(?<=[^_^ ])\s*\\text\{[^{}]*\}(?:\s*\^\s*(?:\d|\{\d\}))?$()")
# 12 apples, 5 dollars per hour; not 3 pi.
_WORD_UNIT = re.compile(r"^(-?[\d.,/]+)\s+(?!(?:pi|or|and|to|mod|sqrt|times)\b)[A-Za-z]{2,}(?: [A-Za-z]{2,})*(?:\^\d)?$")
_WRAPPED = re.compile(r"^(?:\\text)?\{([^{}]*)\}$")
_THOUSANDS = re.compile(r"-?\d{1,3}(?:, ?\d{3})+(?:\.\d+)?")
_PLAIN = re.compile(r"([+-]?)\s*(\d+\.?\d*|\.\d+)(?:\s*/\s*(\d+))?", re.ASCII)
_MIXED = re.compile(r"([+-]?)\s*(\d+)?\s*\\frac\{([0-9]+)\}\{([0-9]+)\}", re.ASCII)
_BASED = re.compile(r"([0-9][0-9A-Fa-f]*)\s*_\s*(?:(\d+)|\{\s*(\d+)\s*\})")
_WORDS = re.compile(r"[A-Za-z]+(?:[ '-][A-Za-z]+)*")
_NUMBER_IN_TEXT = re.compile(r"(?:(?<![\w)])-)?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:/\d+)?", re.ASCII)
