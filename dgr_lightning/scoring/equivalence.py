r"""Whether a final answer is the gold one, by what they are made of and what that is worth.

Parts are compared by kind (lists in any order, tuples in theirs, sets of numbers however they are described, equations up to a
factor), expressions by their values. What cannot be read here is left to a symbolic comparison, which the caller brings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from random import Random

from dgr_lightning.scoring import expressions
from dgr_lightning.scoring.answer_form import decimals, normalise, numeral, parse_number
from dgr_lightning.scoring.answer_parts import Leaf, Listed, Matrix, Part, Relation, Scaled, read_parts
from dgr_lightning.scoring.expressions import Expression, Unreadable, Value
from dgr_lightning.scoring.regions import INFINITY, end_value, is_explicit, region_of, same_region
from dgr_lightning.scoring.words import same_words

Symbolic = Callable[[str, str], bool | None]
"""Compares two pieces of LaTeX; None: one of them cannot be read."""


def equivalent(answer: str, gold: str, symbolic: Symbolic) -> bool | None:
    """Returns whether an answer is the gold one; None where neither this nor the symbolic comparison can read them.

    Args:
        answer: in the form of `answer_form.plain_latex`, without units.
        gold: the same.
        symbolic: compares expressions that cannot be read here.
    """
    modulus, gold_modulus = _MODULUS.search(answer), _MODULUS.search(gold)
    if modulus and gold_modulus and (modulus[1] or modulus[2]).strip() != (gold_modulus[1] or gold_modulus[2]).strip():
        return False
    answer, gold = _MODULUS.sub("", answer), _MODULUS.sub("", gold)
    comparison = _Comparison(symbolic)
    if _SPACED_THOUSANDS.fullmatch(answer.strip()) and isinstance(read_parts(gold), Leaf):
        return comparison.whole(re.sub("[, ]", "", answer), gold)  # 1, 200 for 1200
    result = comparison.whole(answer, gold)
    merged = [_THOUSANDS.sub("", text) for text in (answer, gold)]
    return result if result or merged == [answer, gold] else comparison.whole(*merged)


_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:,\d{3})*(?![\d]))")
_MODULUS = re.compile(r"\(?\s*\\(?:pmod|bmod|mod)\s*(?:\{([^{}]*)\}|(\w+))\s*\)?$")
_SPACED_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:, ?\d{3})+(?:\.\d+)?")


_OPENING = re.compile(r"[(\[{|]")

MAX_SYMBOLIC = 400
"""Characters that are compared symbolically: parsing takes seconds for longer ones."""

MAX_SYMBOLIC_GROUPS = 60
"""Brackets and bars of an answer that is compared symbolically."""


class _Comparison:
    """Compares parts; True, False, or None for what cannot be read."""

    def __init__(self, symbolic: Symbolic) -> None:
        self._symbolic = symbolic

    def same(self, answer: Part, gold: Part) -> bool | None:
        """Returns whether two parts are the same answer."""
        if (is_explicit(answer) or is_explicit(gold)) and (right := region_of(gold)) is not None:
            left = region_of(answer)
            if left is not None:
                return same_region(left, right)
        answer, gold = _multiplied(answer), _multiplied(gold)
        if isinstance(gold, Relation):
            return self._relation(answer, gold)
        if isinstance(answer, Relation):
            return self._value_of_relation(answer, gold)
        if isinstance(gold, Listed):
            return self._list(answer, gold)
        if isinstance(gold, Matrix):
            return self._matrix(answer, gold)
        if isinstance(answer, Listed):
            return self._list_for_one(answer, gold)
        if isinstance(answer, Matrix):
            return self.same(answer.rows[0][0], gold) if _shape(answer) == [1] else False
        if isinstance(answer, Leaf) and isinstance(gold, Leaf):
            return self._leaf(answer.text, gold.text)
        if isinstance(answer, Scaled) and isinstance(gold, Scaled):
            return _all([self._leaf(answer.factor, gold.factor), self.same(answer.part, gold.part)])
        return False

    def whole(self, answer: str, gold: str) -> bool | None:
        """Returns whether two texts are the same answer."""
        part, target = read_parts(answer), read_parts(gold)
        # A sum or a product of matrices or of sets is computed by others.
        if isinstance(part, Leaf) != isinstance(target, Leaf) and any(
            isinstance(one, Leaf) and re.search(r"\\begin\{|\\cap", one.text) for one in (part, target)
        ):
            return self._symbolically(answer, gold)
        return self.same(part, target)

    def _symbolically(self, answer: str, gold: str) -> bool | None:
        if max(len(answer), len(gold)) > MAX_SYMBOLIC or len(_OPENING.findall(answer)) > MAX_SYMBOLIC_GROUPS:
            return None
        return self._symbolic(answer, gold)

    def _list_for_one(self, answer: Listed, gold: Part) -> bool | None:
        """A set of one thing, or the same value said twice (`\\frac{3}{2} or 1.5`)."""
        if len(answer.parts) == 1 and answer.brackets in ("", r"\{\}"):
            return self.same(answer.parts[0], gold)
        if answer.brackets or answer.joint not in ("or", ","):
            return False
        return _all([self.same(part, gold) for part in answer.parts])

    def _list(self, answer: Part, gold: Listed) -> bool | None:
        if isinstance(answer, Matrix) and gold.brackets in ("()", "<>", "[]"):
            return self._in_order(_vector(answer), gold.parts)
        if not isinstance(answer, Listed):
            if len(gold.parts) == 1 or _are_same_value(gold.parts):
                return self.same(answer, gold.parts[0])
            return False
        if gold.joint in ("cup", "setminus") or answer.joint in ("cup", "setminus"):
            return answer.joint == gold.joint and self._in_any_order(answer.parts, gold.parts)
        names, gold_names = _names(answer.parts), _names(gold.parts)
        if names and gold_names and len(set(gold_names)) > 1:
            return self._named(answer.parts, gold.parts, names, gold_names)
        ordered = bool(gold.brackets and gold.brackets != r"\{\}")
        if (names and len(set(names)) > 1) or (gold_names and len(set(gold_names)) > 1):
            ordered = True
        parts, targets = _values(answer.parts), _values(gold.parts)
        if answer.brackets and gold.brackets and (answer.brackets != gold.brackets):
            intervals = len(gold.parts) == 2 and {answer.brackets, gold.brackets} <= {"()", "[]", "(]", "[)"}
            if intervals or r"\{\}" in (answer.brackets, gold.brackets):
                return False
        if answer.brackets and answer.brackets != r"\{\}" and not gold.brackets:
            ordered = True  # (1, 2) for 1, 2
        return self._in_order(parts, targets) if ordered else self._in_any_order(parts, targets)

    def _named(
        self, parts: Sequence[Part], targets: Sequence[Part], names: Sequence[str], gold_names: Sequence[str]
    ) -> bool | None:
        """x = 1, y = 2: by name, in any order."""
        if sorted(names) != sorted(gold_names):
            return False
        pairs = [(name, value) for name, value in zip(names, _values(parts), strict=True)]
        targets_by_name = sorted(zip(gold_names, _values(targets), strict=True), key=lambda pair: pair[0])
        if len(set(names)) == len(names):
            values = dict(pairs)
            return _all([self.same(values[name], value) for name, value in targets_by_name])
        return self._in_any_order(list(parts), list(targets))

    def _in_order(self, parts: Sequence[Part], targets: Sequence[Part]) -> bool | None:
        if len(parts) != len(targets):
            return False
        return _all([self.same(part, target) for part, target in zip(parts, targets, strict=True)])

    def _in_any_order(self, parts: Sequence[Part], targets: Sequence[Part]) -> bool | None:
        if len(parts) != len(targets):
            return False
        unknown, left = False, list(targets)
        for part in parts:
            for i, target in enumerate(left):
                result = self.same(part, target)
                unknown = unknown or result is None
                if result:
                    del left[i]
                    break
            else:
                return None if unknown else False
        return True

    def _matrix(self, answer: Part, gold: Matrix) -> bool | None:
        if isinstance(answer, Listed) and answer.brackets in ("()", "<>", "[]", ""):
            return self._in_order(answer.parts, _vector(gold)) if _vector(gold) else False
        if not isinstance(answer, Matrix) or _shape(answer) != _shape(gold):
            return False
        pairs = zip(answer.rows, gold.rows, strict=True)
        return _all([self.same(a, g) for row, target in pairs for a, g in zip(row, target, strict=True)])

    def _relation(self, answer: Part, gold: Relation) -> bool | None:
        if not isinstance(answer, Relation):
            # x = 5 is answered by 5; x + y = 5 is an equation.
            if not set(gold.signs) <= {"=", "in"} or not (_is_name(gold.sides[0]) or _is_name(gold.sides[-1])):
                return False
            return self.same(answer, gold.sides[-1 if _is_name(gold.sides[0]) else 0])
        if set(gold.signs) <= {"="} and set(answer.signs) <= {"="}:
            return self._equation(answer, gold)
        if len(gold.signs) == len(answer.signs):
            straight = gold.signs == answer.signs and self._in_order(answer.sides, gold.sides)
            turned = tuple(_TURNED[sign] for sign in answer.signs[::-1])
            if straight or (turned == gold.signs and self._in_order(answer.sides[::-1], gold.sides)):
                return True
        if len(gold.signs) == len(answer.signs) == 1 and gold.signs[0] in _TURNED and answer.signs[0] in _TURNED:
            factor = _factor(answer, gold)
            wanted = gold.signs[0] if (factor or 0) > 0 else _TURNED[gold.signs[0]]
            return factor is not None and answer.signs[0] == wanted
        return False

    def _equation(self, answer: Relation, gold: Relation) -> bool | None:
        name, gold_name = _name(answer.sides[0]), _name(gold.sides[0])
        if name and gold_name:
            if len(name) == len(gold_name) == 1 and name != gold_name:
                return _factor(answer, gold) is not None
            if self._value_of_relation(answer, gold.sides[-1]):
                return True
        if len(gold.sides) == len(answer.sides) == 2:
            if _factor(answer, gold) is not None:
                return True
            return self._in_order(answer.sides, gold.sides) or self._in_order(answer.sides[::-1], gold.sides)
        return self._value_of_relation(answer, gold.sides[-1])

    def _value_of_relation(self, answer: Relation, gold: Part) -> bool | None:
        """What `x = …` or `a = b ≈ c` says: the last side; an earlier one where the sides do not contradict each other."""
        if not set(answer.signs) <= {"=", "in"}:
            return False
        result = self.same(answer.sides[-1], gold)
        if result:
            return True
        earlier = [side for side in answer.sides[:-1] if not _is_name(side)]
        if not answer.exact:
            earlier = earlier[-1:]  # what stands before ≈ is exact, whatever the decimal after it
        elif _contradict(answer):
            return result
        if not earlier:
            return result
        results = [self.same(side, gold) for side in earlier]
        return True if True in results else None if None in [*results, result] else False

    def _leaf(self, answer: str, gold: str) -> bool | None:
        if answer.replace(" ", "") == gold.replace(" ", ""):
            return True
        if (infinite := INFINITY.fullmatch(gold)) or INFINITY.fullmatch(answer):
            other = INFINITY.fullmatch(answer)
            return bool(infinite and other and (infinite[1] == "-") == (other[1] == "-"))
        left, right = normalise(answer), normalise(gold)
        (words, by_words), unlike = same_words(left, right), numeral(right)[1] or numeral(left)[1]
        if by_words:
            return words
        if unlike:
            return _same_numeral(left, right)
        if ":" in gold or ":" in answer:
            return _same_ratio(left, right)
        if (result := same_number(answer, gold)) is not None:
            return result
        result = same_expression(answer, gold)
        if result is None and not _ONLY_LETTERS.fullmatch(answer):
            return self._symbolically(answer, gold)
        return result


_ONLY_LETTERS = re.compile(r"(?:\\text\{)?[^\W\d_\\][\w ,.'-]*\}?")
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!=", "=": "=", "in": "ni"}
_NAME = re.compile(
    r"[A-Za-z](?:_\{?\w+\}?)?'*|\\(?!pi|infty)[a-z]+|[A-Za-z]'*\s*(?:\^\{-1\})?\(\s*[\w,\s]+\s*\)|[A-Z]{2,4}|\\text\{[^{}]*\}"
    r"|(?:m\s*)?\\angle\s*[A-Z]{1,3}|\\(?:overline|text|mathrm|vec|mathbf)\{[^{}]*\}|\|?\\?[A-Za-z]+\|?|\\[a-z]+_\{?\w+\}?"
)


def _name(part: Part) -> str | None:
    """Returns what an equation names by its left side: x, f(x), AB, (x, y); None for an expression."""
    if isinstance(part, Leaf):
        text = part.text.strip()
        return text.replace(" ", "") if text not in ("e", "i") and _NAME.fullmatch(text) else None
    if isinstance(part, Listed) and part.brackets == "()":
        names = [_name(item) for item in part.parts]
        return ",".join(name or "" for name in names) if all(names) else None
    return None


def _is_name(part: Part) -> bool:
    return _name(part) is not None


def _names(parts: Sequence[Part]) -> list[str] | None:
    """Returns the left sides of parts that are all equations of names; None for others."""
    names = [_name(part.sides[0]) for part in parts if isinstance(part, Relation) and set(part.signs) <= {"="}]
    return [name for name in names if name] if len(names) == len(parts) and all(names) else None


def _values(parts: Sequence[Part]) -> list[Part]:
    """Returns parts without the names before them."""
    return [
        part.sides[-1] if isinstance(part, Relation) and set(part.signs) <= {"="} and _name(part.sides[0]) else part
        for part in parts
    ]


def _are_same_value(parts: Sequence[Part]) -> bool:
    values = [end_value(part) for part in parts]
    return None not in values and len(set(values)) == 1


def _vector(matrix: Matrix) -> list[Part]:
    """Returns the entries of a matrix of one column or one row; none of another."""
    shape = _shape(matrix)
    return [entry for row in matrix.rows for entry in row] if len(shape) == 1 or set(shape) == {1} else []


def _shape(matrix: Matrix) -> list[int]:
    return [len(row) for row in matrix.rows]


def _multiplied(part: Part) -> Part:
    """Returns a tuple or matrix with the factor before it in each entry."""
    if not isinstance(part, Scaled):
        return part
    inner = _multiplied(part.part)

    def times(entry: Part) -> Part:
        factor = part.factor if part.factor not in ("-", "+") else f"{part.factor}1"
        return Leaf(f"({factor})({entry.text})") if isinstance(entry, Leaf) else Scaled(part.factor, entry)

    if isinstance(inner, Listed):
        return Listed(tuple(times(entry) for entry in inner.parts), inner.brackets, inner.joint)
    if isinstance(inner, Matrix):
        return Matrix(tuple(tuple(times(entry) for entry in row) for row in inner.rows))
    return part


def _all(results: Sequence[bool | None]) -> bool | None:
    return False if False in results else None if None in results else True


def _contradict(chain: Relation) -> bool:
    """Whether the sides of a chain of equations have values that differ (3 = 5)."""
    values = [value for side in chain.sides if (value := end_value(side)) is not None]
    return any(abs(value - values[0]) > 1e-9 * max(abs(value), abs(values[0])) for value in values[1:])


def _same_numeral(answer: str, gold: str) -> bool:
    """The base that the question asks for may be left out, but not changed."""
    (digits, base), (gold_digits, gold_base) = numeral(answer), numeral(gold)
    if not base or not gold_base:
        bare = answer if not base else gold
        if re.fullmatch(r"[0-9A-Fa-f]+(?:\.[0-9A-Fa-f]+)?", bare) is None:
            return False
        digits, gold_digits = numeral(f"{digits}_10")[0], numeral(f"{gold_digits}_10")[0]
        base = gold_base
    return digits == gold_digits and base == gold_base


_TIME = re.compile(r"(\d{1,2}):(\d\d)\s*(?:\\text\{\s*)?([ap])?\.?\s*(?:m\.?)?\s*\}?", re.I)


def _same_ratio(answer: str, gold: str) -> bool | None:
    time, gold_time = _TIME.fullmatch(answer), _TIME.fullmatch(gold)
    if time and gold_time and (time[3] or gold_time[3] or len(gold_time[2]) == 2):
        half, gold_half = (time[3] or "").casefold(), (gold_time[3] or "").casefold()
        return [int(time[1]), int(time[2])] == [int(gold_time[1]), int(gold_time[2])] and (
            half == gold_half or not half or not gold_half
        )
    ratio, gold_ratio = answer.split(":"), gold.split(":")
    if len(ratio) == len(gold_ratio):
        results = [same_expression(f"({a})({h})", f"({g})({b})") for a, g, b, h in zip(
            ratio, gold_ratio, ratio[1:] + ratio[:1], gold_ratio[1:] + gold_ratio[:1], strict=True
        )]  # fmt: skip
        return _all(results)
    if {len(ratio), len(gold_ratio)} == {1, 2}:
        return same_expression(answer.replace(":", "/"), gold.replace(":", "/"))
    return False


def same_number(answer: str, gold: str) -> bool | None:
    """Returns whether two numbers are the same; None where one of them is none, or has to be computed.

    25 % is 0.25, and also 25 where the other does not say of what. A gold decimal may be a rounding of the answer.
    """
    left, right = normalise(answer), normalise(gold)
    value, target = parse_number(left), parse_number(right)
    if value is None and target is not None and target.denominator > 1:
        value = _with_decimal_comma(left)
    elif target is None and value is not None and value.denominator > 1:
        target = _with_decimal_comma(right)
    if value is None or target is None:
        return None
    percent, gold_percent = "%" in answer, "%" in gold
    if value == target or _rounded(left, value, right, target):
        return True
    if percent != gold_percent:
        return value == 100 * target if percent else 100 * value == target
    return False


def _with_decimal_comma(text: str) -> Fraction | None:
    return parse_number(text.replace(",", ".")) if re.fullmatch(r"-?\d+,\d+", text) else None


def _rounded(answer: str, value: Value, gold: str, target: Value) -> bool:
    """Whether one of two values is written as a decimal, and is the other one rounded.

    The gold answer to four digits or more; the answer to at least six places, as math-verify has it.
    """
    try:
        shorter = decimals(answer), decimals(gold)
        a, g = complex(value).real, complex(target).real
        if g == 0 or abs(complex(value) - complex(target)) > 1e-4 * abs(g):
            return False
        if shorter[1] is not None and (shorter[0] is None or shorter[0] > shorter[1]):
            return 2 <= shorter[1] <= 12 and round(a, shorter[1]) == g
        if shorter[0] is not None and shorter[1] is None and MIN_PLACES <= shorter[0] <= 17:
            cut = int(g * 10 ** shorter[0]) / 10 ** shorter[0]
            return a in (round(g, shorter[0]), cut)
    except (OverflowError, ValueError):
        pass
    return False


MIN_PLACES = 6
"""Places after the point that an answer needs to stand for a fraction or a root: 0.333333 for 1/3."""


def same_expression(answer: str, gold: str) -> bool | None:
    """Returns whether two expressions have the same values; None where one cannot be read or computed.

    A logarithm without a base may be natural or common, and 1/2x may be 1/(2x): one reading that agrees is enough.
    """
    try:
        left, right = expressions.read(answer), expressions.read(gold)
    except Unreadable:
        return None
    first = _agree(left, right, answer, gold)
    if first is not False:
        return first
    for log, tight in ((True, False), (False, True)):
        if ("log" if log else "slash") in left.marks | right.marks:
            lefts = [left, expressions.read(answer, log, tight)]
            rights = [right, expressions.read(gold, log, tight)]
            if any(_agree(a, g, answer, gold) for a in lefts for g in rights):
                return True
    if ("°" in answer) != ("°" in gold) or "%" in answer or "%" in gold:
        plain = [text.replace("°", "").replace("%", "") for text in (answer, gold)]
        if not any(function in answer + gold for function in ("\\sin", "\\cos", "\\tan")):
            return _agree(expressions.read(plain[0]), expressions.read(plain[1]), *plain)
    return False


NUM_POINTS = 3
"""At so many points of their variables expressions have to agree."""


def _agree(left: Expression, right: Expression, answer: str, gold: str) -> bool | None:
    symbols = sorted(left.symbols | right.symbols)
    if not symbols:
        try:
            target = right.node({})
        except (ArithmeticError, ValueError, TypeError):
            return None
        try:
            value = left.node({})
        except (ArithmeticError, ValueError, TypeError):
            return False
        return _equal(value, target, 1e-10) or _rounded(normalise(answer), value, normalise(gold), target)
    signs = "abs" in left.marks | right.marks
    random, agreed, missing = Random(0), 0, 0
    for attempt in range(3 * NUM_POINTS):
        point = {name: _drawn(random, signs and attempt % 2 == 1) for name in symbols}
        try:
            target = right.node(point)
        except (ArithmeticError, ValueError, TypeError):
            continue
        try:
            value = left.node(point)
        except (ArithmeticError, ValueError, TypeError):
            missing += 1
            continue
        if not _equal(value, target, 1e-8):
            return False
        agreed += 1
        if agreed == NUM_POINTS:
            return True
    return False if missing else None


def _drawn(random: Random, negative: bool) -> complex:
    value = random.uniform(0.4, 2.6)
    return complex(-value if negative else value)


def _equal(value: Value, target: Value, tolerance: float) -> bool:
    if isinstance(value, Fraction) and isinstance(target, Fraction):
        return value == target
    try:
        a, b = complex(value), complex(target)
    except OverflowError:
        return False
    return abs(a - b) <= tolerance * max(abs(a), abs(b)) or max(abs(a), abs(b)) < 1e-14


def _factor(answer: Relation, gold: Relation) -> float | None:
    """Returns the number by which the difference of an equation's sides is that of another's; None where there is none."""
    try:
        (a, b), (c, d) = ([expressions.read(_text(side)) for side in relation.sides] for relation in (answer, gold))
    except (Unreadable, ValueError):
        return None
    symbols = sorted(set().union(*(side.symbols for side in (a, b, c, d))))
    random, ratios = Random(1), []
    for _ in range(2 * NUM_POINTS):
        point = {name: _drawn(random, False) for name in symbols}
        try:
            ratios.append(_difference(a, b, point) / _difference(c, d, point))
        except (ArithmeticError, ValueError, TypeError):
            continue
        if not _equal(ratios[-1], ratios[0], 1e-7) or abs(ratios[0]) < 1e-12:
            return None
        if len(ratios) == NUM_POINTS:
            return ratios[0].real if symbols else None
    return None


def _difference(left: Expression, right: Expression, point: Mapping[str, Value]) -> complex:
    return complex(left.node(point)) - complex(right.node(point))


def _text(part: Part) -> str:
    if isinstance(part, Leaf):
        return part.text
    raise Unreadable("not one expression")
