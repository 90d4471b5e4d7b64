r"""Whether a final answer is the gold one, by what they are made of and what that is worth.

Parts are compared by kind (lists in any order, tuples in theirs, sets of numbers however they are described, equations up to a
factor), expressions by their values. What cannot be read here is left to a symbolic comparison, which the caller brings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from dgr_lightning.scoring.maths.answer_form import normalise, numeral
from dgr_lightning.scoring.maths.answer_parts import (
    Leaf,
    Listed,
    Matrix,
    Part,
    Relation,
    Scaled,
    multiplied,
    read_parts,
    shape,
    vector,
)
from dgr_lightning.scoring.maths.names import is_name, name_of, names_of, without_names
from dgr_lightning.scoring.maths.ratios import same_ratio
from dgr_lightning.scoring.maths.regions import INFINITY, end_value, is_explicit, region_of, same_region
from dgr_lightning.scoring.maths.sampled_values import factor_between, same_expression
from dgr_lightning.scoring.maths.three_valued import all_same
from dgr_lightning.scoring.maths.words import same_words
from dgr_lightning.scoring.maths.written_numbers import same_number, same_numeral

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
        answer, gold = multiplied(answer), multiplied(gold)
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
            return self.same(answer.rows[0][0], gold) if shape(answer) == [1] else False
        if isinstance(answer, Leaf) and isinstance(gold, Leaf):
            return self._leaf(answer.text, gold.text)
        if isinstance(answer, Scaled) and isinstance(gold, Scaled):
            return all_same([self._leaf(answer.factor, gold.factor), self.same(answer.part, gold.part)])
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
        return all_same([self.same(part, gold) for part in answer.parts])

    def _list(self, answer: Part, gold: Listed) -> bool | None:
        if isinstance(answer, Matrix) and gold.brackets in ("()", "<>", "[]"):
            return self._in_order(vector(answer), gold.parts)
        if not isinstance(answer, Listed):
            if len(gold.parts) == 1 or _are_same_value(gold.parts):
                return self.same(answer, gold.parts[0])
            return False
        if gold.joint in ("cup", "setminus") or answer.joint in ("cup", "setminus"):
            return answer.joint == gold.joint and self._in_any_order(answer.parts, gold.parts)
        names, gold_names = names_of(answer.parts), names_of(gold.parts)
        if names and gold_names and len(set(gold_names)) > 1:
            return self._named(answer.parts, gold.parts, names, gold_names)
        ordered = bool(gold.brackets and gold.brackets != r"\{\}")
        if (names and len(set(names)) > 1) or (gold_names and len(set(gold_names)) > 1):
            ordered = True
        parts, targets = without_names(answer.parts), without_names(gold.parts)
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
        pairs = [(name, value) for name, value in zip(names, without_names(parts), strict=True)]
        targets_by_name = sorted(zip(gold_names, without_names(targets), strict=True), key=lambda pair: pair[0])
        if len(set(names)) == len(names):
            values = dict(pairs)
            return all_same([self.same(values[name], value) for name, value in targets_by_name])
        return self._in_any_order(list(parts), list(targets))

    def _in_order(self, parts: Sequence[Part], targets: Sequence[Part]) -> bool | None:
        if len(parts) != len(targets):
            return False
        return all_same([self.same(part, target) for part, target in zip(parts, targets, strict=True)])

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
            return self._in_order(answer.parts, vector(gold)) if vector(gold) else False
        if not isinstance(answer, Matrix) or shape(answer) != shape(gold):
            return False
        pairs = zip(answer.rows, gold.rows, strict=True)
        return all_same([self.same(a, g) for row, target in pairs for a, g in zip(row, target, strict=True)])

    def _relation(self, answer: Part, gold: Relation) -> bool | None:
        if not isinstance(answer, Relation):
            # x = 5 is answered by 5; x + y = 5 is an equation.
            if not set(gold.signs) <= {"=", "in"} or not (is_name(gold.sides[0]) or is_name(gold.sides[-1])):
                return False
            return self.same(answer, gold.sides[-1 if is_name(gold.sides[0]) else 0])
        if set(gold.signs) <= {"="} and set(answer.signs) <= {"="}:
            return self._equation(answer, gold)
        if len(gold.signs) == len(answer.signs):
            straight = gold.signs == answer.signs and self._in_order(answer.sides, gold.sides)
            turned = tuple(_TURNED[sign] for sign in answer.signs[::-1])
            if straight or (turned == gold.signs and self._in_order(answer.sides[::-1], gold.sides)):
                return True
        if len(gold.signs) == len(answer.signs) == 1 and gold.signs[0] in _TURNED and answer.signs[0] in _TURNED:
            factor = factor_between(answer, gold)
            wanted = gold.signs[0] if (factor or 0) > 0 else _TURNED[gold.signs[0]]
            return factor is not None and answer.signs[0] == wanted
        return False

    def _equation(self, answer: Relation, gold: Relation) -> bool | None:
        name, gold_name = name_of(answer.sides[0]), name_of(gold.sides[0])
        if name and gold_name:
            if len(name) == len(gold_name) == 1 and name != gold_name:
                return factor_between(answer, gold) is not None
            if self._value_of_relation(answer, gold.sides[-1]):
                return True
        if len(gold.sides) == len(answer.sides) == 2:
            if factor_between(answer, gold) is not None:
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
        earlier = [side for side in answer.sides[:-1] if not is_name(side)]
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
            return same_numeral(left, right)
        if ":" in gold or ":" in answer:
            return same_ratio(left, right)
        if (result := same_number(answer, gold)) is not None:
            return result
        result = same_expression(answer, gold)
        if result is None and not _ONLY_LETTERS.fullmatch(answer):
            return self._symbolically(answer, gold)
        return result


_ONLY_LETTERS = re.compile(r"(?:\\text\{)?[^\W\d_\\][\w ,.'-]*\}?")
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!=", "=": "=", "in": "ni"}


def _are_same_value(parts: Sequence[Part]) -> bool:
    values = [end_value(part) for part in parts]
    return None not in values and len(set(values)) == 1


def _contradict(chain: Relation) -> bool:
    """Whether the sides of a chain of equations have values that differ (3 = 5)."""
    values = [value for side in chain.sides if (value := end_value(side)) is not None]
    return any(abs(value - values[0]) > 1e-9 * max(abs(value), abs(values[0])) for value in values[1:])
