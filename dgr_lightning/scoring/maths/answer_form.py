r"""The normal form of a final answer, still LaTeX: maths grading compares these before it computes anything.

It follows MATH's own (Hendrycks et al. 2021, `math_equivalence.py`): spacing, styles, dollars, per cent, degrees and units do
not change the value. Units go only where nobody can take them for letters of the answer (`without_units`).
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction


def normalise(text: str, units: bool = True) -> str:
    """Returns a final answer in its normal form: `\\dfrac12\\text{ cm}` becomes `\\frac{1}{2}`.

    Args:
        text: as it was written.
        units: whether units after it are dropped, and marks of per cent and degrees with them.
    """
    text = plain_latex(text)
    if units:
        text = _MARKS.sub("", text)
    text = without_braces(" ".join(text.split()).rstrip(". "))
    if units:
        text = without_units(text)
    text = _WRAPPED.sub(r"\1", text).strip()
    text = re.sub(r"^\(([A-Za-z])\)$", r"\1", text)  # (C), as multiple choice is answered
    return _BETWEEN_THOUSANDS.sub("", text) if _THOUSANDS.fullmatch(text) else text


def plain_latex(text: str) -> str:
    """Returns LaTeX with one way of writing each thing: fractions with braces, ASCII digits, no spacing, no styles."""
    text = _FRACTION_CHARACTER.sub(_spelt_fraction, text)
    text = unicodedata.normalize("NFKC", text.translate(_SIGNS))
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text


def without_braces(text: str) -> str:
    """Returns a text without braces around all of it."""
    while text.startswith("{") and text.endswith("}"):
        depth, closed = 0, len(text)
        for place, character in enumerate(text):
            depth += {"{": 1, "}": -1}.get(character, 0)
            if depth == 0:
                closed = place
                break
        if closed != len(text) - 1 or text.endswith("\\}"):
            break
        text = text[1:-1].strip()
    return text


def without_units(text: str) -> str:
    r"""Returns a text without what follows it as a unit: `864\text{ inches}^2`, `12 square feet`; not `4210_\text{five}`."""
    for unit in (_TEXT_UNIT, _TEXT_UNIT, _WORD_UNIT):
        text = unit.sub(r"\1", text)
    return _MONEY.sub(r"\1", text)


def without_letter_unit(text: str) -> str:
    """Returns a number without a unit of one letter (`5 m`, `9.8m/s^2`): for a gold answer that has no letters."""
    return _LETTER_UNIT.sub(r"\1", text)


def unit_of(text: str) -> str | None:
    """Returns the name of the unit that follows an answer, one name for one unit (`cm`); None for none or an unknown one."""
    found = _LAST_UNIT.search(plain_latex(text).replace("\\text", "").replace("{", " ").replace("}", " "))
    return None if found is None else _UNITS.get(found[1].casefold())


def has_letters(text: str) -> bool:
    r"""Whether a gold answer has letters of its own: `3a+2t`; not `5`, `\frac{1}{2}` or `5\text{ cm}`."""
    return re.search(r"[A-Za-z]", _OWN_LETTERS.sub("", normalise(text))) is not None


def parse_number(text: str) -> Fraction | None:
    """Returns the value of a normal form that is a whole number, a decimal, a/b, \\frac{a}{b} or mixed; None for any other."""
    if len(text) > MAX_NUMBER:
        return None
    if plain := _PLAIN.fullmatch(text):
        power = int(plain[3] or plain[4] or 0)
        if abs(power) > MAX_POWER:
            return None
        sign, value, divisor = plain[1], Fraction(plain[2]) * Fraction(10) ** power, int(plain[5] or 1)
    elif (mixed := _MIXED.fullmatch(text)) or (mixed := _MIXED_SLASH.fullmatch(text)):
        sign, divisor = mixed[1], int(mixed[4])
        value = Fraction(int(mixed[2] or 0) * divisor + int(mixed[3]))
    else:
        return None
    if divisor == 0:
        return None
    return (-value if sign == "-" else value) / divisor


MAX_NUMBER = 400
"""Characters of a number that is read as one."""

MAX_POWER = 999
"""The largest power of ten that is written out."""


def decimals(text: str) -> int | None:
    """Returns how many digits a normal form has after its point; None unless it is a decimal with a point."""
    plain = _PLAIN.fullmatch(text)
    if plain is None or "." not in plain[2] or plain[5]:
        return None
    return len(plain[2].partition(".")[2]) - int(plain[3] or plain[4] or 0)


def numeral(text: str) -> tuple[str, str | None]:
    """Returns the digits and the base of a normal form such as 52_8 or 1A.8_{16}; the base is None where none is written."""
    based = _BASED.fullmatch(text)
    if based is None:
        return text, None
    digits = based[1].upper()
    whole, point, places = digits.partition(".")
    digits = (whole.lstrip("0") or "0") + (point + places).rstrip("0").rstrip(".") if point else digits.lstrip("0") or "0"
    base = next(group for group in based.groups()[1:] if group).strip().casefold()
    return digits, _BASES.get(base, base)


def is_words(text: str) -> bool:
    """Whether a normal form is a name or words, to be compared as such: symbolic maths reads `even` as e·v·e·n."""
    return _WORDS.fullmatch(text) is not None and _LONG_RUN.search(text) is not None


def is_product(text: str) -> bool:
    """Whether words may also be a product of variables: `abc`."""
    return re.fullmatch("[a-z]{1,3}", text) is not None


_SIGNS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "π": r"\pi ",
        "√": r"\sqrt ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
        "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "∓": r"\mp ", "ℝ": r"\mathbb{R}",
        "²": "^2", "³": "^3", "¹": "^1", "⁴": "^4", "⁵": "^5", "⁶": "^6", "⁷": "^7", "⁸": "^8", "⁹": "^9", "⁰": "^0", "º": "°",
        "，": ",", "、": ",", "′": "'", "’": "'", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ",
        "₀": "_0", "₁": "_1", "₂": "_2", "₃": "_3", "₄": "_4", "₅": "_5", "₆": "_6", "₇": "_7", "₈": "_8", "₉": "_9",
        "∖": r"\setminus ", "∘": r"\circ ", "⟨": r"\langle ", "⟩": r"\rangle ", "€": "", "£": "",
    }
)  # fmt: skip
_FRACTION_CHARACTER = re.compile("(?<=[0-9])?[¼½¾⅐-⅞]")


def _spelt_fraction(found: re.Match[str]) -> str:
    upper, _, lower = unicodedata.normalize("NFKC", found[0]).partition("\N{FRACTION SLASH}")
    return f"\\frac{{{upper}}}{{{lower}}}"


_STYLES = "mbox|hbox|mathrm|mathbf|mathit|mathsf|mathnormal|boldsymbol|bm|textbf|textrm|textit|textnormal|textsf|textup|text"
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\*\*", ""),
        (r"\{,\}", ","),
        # (?<!\\) spares the row ends of matrices: \\ is no backslash before a blank.
        (r"(?<!\\)\\!\s*", ""),
        (r"(?<=\d)\\,(?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\[,;:> ](?![A-Za-z]*\{)|(?<!\\)\\[,;:> ]|~|\\q?quad\b|\\hspace\{[^{}]*\}", " "),
        (r"\\(?:left|right|bigg?[lr]?|Bigg?[lr]?)\b\.?|\\(?:displaystyle|textstyle|limits|hfill)(?![A-Za-z])", ""),
        (r"\\(?:color|textcolor)\s*\{[^{}]*\}\s*", ""),
        (r"\\(?:operatorname|operatorname\*)\s*\{\s*([A-Za-z]+)\s*\}", r"\\\1 "),
        (rf"\\(?:{_STYLES})\s*\{{", r"\\text{"),
        (r"\\text\{\s*\}", " "),
        (r"\\(?:bf|rm|it|sf)(?![A-Za-z])\s*", ""),
        (r"\\?\$", ""),
        (r"\\degrees?(?![A-Za-z])|\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})|\s*\\circ(?![A-Za-z])(?=\s*$)|\^°", "°"),
        (r"\\percent(?![A-Za-z])|\\%", "%"),
        (r"\\[dtc]?frac(?![A-Za-z])\s*", r"\\frac"),
        (r"\\frac(\w)", r"\\frac{\1}"),
        (r"(\\frac\{[^{}]*\})\s*(\w)", r"\1{\2}"),
        (r"(\\frac\{[^{}]*\})\s+\{", r"\1{"),
        (r"\\(?:leqslant|leq)(?![A-Za-z])", r"\\le "),
        (r"\\(?:geqslant|geq)(?![A-Za-z])", r"\\ge "),
        (r"\\(?:neq|not\s*=)", r"\\ne "),
        (r"\\(?:varnothing|O)(?![A-Za-z])", r"\\emptyset "),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
    )
)
_MARKS = re.compile("[%°]")
_FULL_NAMES = {
    "cm": "centimeter", "mm": "millimeter", "km": "kilometer", "m": "meter", "in": "inch", "ft": "foot", "yd": "yard",
    "mi": "mile", "s": "second", "sec": "second", "min": "minute", "h": "hour", "hr": "hour", "kg": "kilogram", "g": "gram",
    "mg": "milligram", "lb": "pound", "oz": "ounce", "ml": "milliliter", "l": "liter", "inches": "inch", "feet": "foot",
    "mph": "mph", "gal": "gallon", "cent": "cent", "dollar": "dollar", "day": "day", "week": "week", "month": "month",
    "year": "year", "degree": "degree", "radian": "radian", "percent": "percent",
}  # fmt: skip
_UNITS = {
    spelling: name
    for short, name in _FULL_NAMES.items()
    for spelling in (short, f"{short}s", name, f"{name}s", name.replace("meter", "metre"), f"{name.replace('meter', 'metre')}s")
}
_LAST_UNIT = re.compile(r"(?:\d|\))\s*([A-Za-z]{1,12})\.?\s*(?:\^\s*\d\s*)?\.?$")
# 864\text{ inches}^2; not 4210_\text{five}, and not a text that is all there is. Joints are no units.
_TEXT_UNIT = re.compile(
    r"(?<=[^_^ {(,])\s*\\text\{(?!\s*(?:and|or|if|for|mod|AM|PM|am|pm|[ap]\.\s?m\.?)\b[^{}]*\})[^{}]*\}"
    r"(?:\s*[/·]\s*\\text\{[^{}]*\})?(?:\s*\^\s*(?:-?\d|\{-?\d\}))*$()"
)
# 12 apples, 5 dollars per hour; not 3 pi, not 3 ab.
_WORD_UNIT = re.compile(
    r"^(?:\\text\{)?\s*(-?[\d.,/]+|-?\d*\s*\\frac\{\d+\}\{\d+\})\s*(?:(?<=\d)\s|\s|(?<=\d)-)\s*"
    r"(?!(?:pi|or|and|to|mod|sqrt|times|cdot|AM|PM|am|pm|a\.m|p\.m)\b)"
    r"(?:(?:cm|mm|km|in|ft|yd|mi|sec|min|hr|hrs|kg|mg|lb|lbs|oz|ml|mL|mph|cents?|°?[CF]|th|st|nd|rd|sq|cu)\b\.?|[A-Za-z]{3,})"
    r"(?:[ /]+[A-Za-z]+)*\.?(?:\s*\^\s*\{?-?\d\}?)?\}?$"
)
_MONEY = re.compile(r"^(?:USD|US|Rs\.?)\s*(?=\d)()")
_LETTER_UNIT = re.compile(
    r"^(-?(?:[\d.,]+|\d*\s*\\frac\{\d+\}\{\d+\}))\s*"
    r"(?:(?:[mgshLlNJWVAKCFHkcM]|cm|mm|km|kg|mg|ms|ft|in|yd|mi|hr|min|sec|lb|oz|mol|eV|Hz|Pa|kJ|kW|MHz|GHz|nm)"
    r"(?:\s*\^\s*\{?-?\d\}?)?(?:\s*(?:/|\\cdot)?\s*(?=[A-Za-z]))?)+$"
)
_OWN_LETTERS = re.compile(r"\\[A-Za-z]+|\d[eE][+-]?\d")
_WRAPPED = re.compile(r"^(?:\\text)?\{([^{}]*)\}$")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?")
_BETWEEN_THOUSANDS = re.compile("[, ]")
_POWER_OF_TEN = r"(?:[eE]([+-]?\d{1,5})|\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?=[-+\d{])\{?\s*([+-]?\d{1,5})\s*\}?)?"
_PLAIN = re.compile(rf"([+-]?)\s*(\d+\.?\d*|\.\d+){_POWER_OF_TEN}(?:\s*/\s*(\d+))?", re.ASCII)
_MIXED = re.compile(r"([+-]?)\s*(\d+)?\s*\\frac\{\s*([0-9]+)\s*\}\{\s*([0-9]+)\s*\}", re.ASCII)
_MIXED_SLASH = re.compile(r"([+-]?)\s*(\d+)\s+(\d+)/(\d+)", re.ASCII)
_BASES = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
    "eleven": "11", "twelve": "12", "sixteen": "16", "hex": "16",
}  # fmt: skip
_BASED = re.compile(
    r"([0-9][0-9A-Fa-f]*(?:\.[0-9A-Fa-f]+)?)\s*_\s*(?:(\d+)|\{\s*(\d+|[a-z]+)\s*\}|\\text\{\s*([a-z]+)\s*\}|\{\\text\{\s*([a-z]+)\s*\}\})"
    r"|([0-9][0-9A-Fa-f]*)\s*\\text\{\s*base\s*(\w+)\s*\}"
)
_WORDS = re.compile(r"[^\W\d_]+\.?(?:(?:,? |'|-)\(?[^\W\d_]+\)?\.?)*")
_LONG_RUN = re.compile(r"[^\W\d_]{3}|^(?i:no)$|[^\x00-\x7f]")
