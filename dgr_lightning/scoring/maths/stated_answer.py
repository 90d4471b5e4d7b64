"""The answer that a text without a box states, in words or in a formula.

It is read by these rules, the first that finds something: a text that is nothing but maths; the last "the answer is …" or
"Answer: …"; then, in the last sentence that has one, bold text, a formula between dollars, a number. Nothing here is
evaluated, and the time is linear in the text.
"""

from __future__ import annotations

import re

_ANCHOR = re.compile(
    r"(?:(?:final|correct|right)[ \t]+)?\banswer\b\**[ \t]*(?:\([^()\n]{0,40}\)[ \t]*)?"
    r"(?:[:：]|(?:to [^.\n]{1,60}? )?(?:is|are|equals|=)(?![A-Za-z])(?:[ \t]*[:：])?)"
    r"|^[ \t]*\#{2,4}[ \t]*(?:the )?(?:final )?answer\b[ \t]*[:：]?[ \t]*$"
    r"|^[ \t]*\*\*(?:the )?(?:final )?answer[ \t]*[:：]?\*\*[ \t]*$"
    r"|^[ \t]*\#{4}(?=[ \t]*[^\s#])"
    r"|答案(?:[:：]|是[:：]?|为[:：]?|為[:：]?)",
    re.IGNORECASE | re.MULTILINE,
)
_LEAD = re.compile(
    r"[\s*:：_]*(?:(?:therefore|thus|simply|just|then|now|indeed|exactly|approximately|about|equal to|given by|the)"
    r"\b[\s*,:]*)*",
    re.IGNORECASE,
)
# A formula between dollars, as pandoc reads them: no blank inside the marks and no digit after them, so that prices are none.
_FORMULA = re.compile(
    r"\$\$(.{1,1000}?)\$\$|\\\[(.{1,1000}?)\\\]|\\\((.{1,1000}?)\\\)|(?<![\\$])\$(?![\s$])((?:\\.|[^$\\\n])*?)(?<!\s)\$(?![\d$])"
    r"|(?<![\\$])\$[ ](?=[^$\n]*\\[A-Za-z]|[\d., /+-]+\$)([^$\n]*?)[ ]?\$(?![\d$])"
    r"|\\begin\{(?:align|equation|gather)\*?\}(.{1,1000}?)\\end\{(?:align|equation|gather)\*?\}",
    re.DOTALL,
)
# LaTeX without dollars, as it stands in a sentence.
_BARE_LATEX = re.compile(r"(?:[-+*/=^_().,|\d{}<>]|[ ](?=[-+*/=^_(|\d{\\])|\\[A-Za-z]+|(?<![A-Za-z])[A-Za-z](?![A-Za-z]))+")
_BOLD = re.compile(r"\*\*(?=\S)([^*\n]*?\S)\*\*|\\textbf\{([^{}]*)\}|<answer>(.{1,200}?)</answer>|<b>(.{1,200}?)</b>")
_NUMBER = re.compile(
    r"(?:(?<![\w)])[-−])?(?<![A-Za-z\d])(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+,\d{1,2}(?![\d,])|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+(?!\w))?(?:/\d+)?(?:\s?\\?%)?",
    re.ASCII,
)
_SENTENCE_END = re.compile(r"(?<!\bvs)(?<!\bca)(?<!\\)(?:[.!?](?=[\s*\"')]|$)|。|；|\n\s*\n|\x01)")
# What may stand at the beginning of an answer without dollars: 3/4, x = 5, (1, 2), \frac{3}{4}, 2\pi.
_PLAIN_MATHS = re.compile(r"(?:[-+−±√π∞\d\\({\[|]|[A-Za-z](?:\([a-z]\))?\s*(?:[-+^*/=(_<>≤≥∈\d]|\\(?:in|le|ge|ne)))[^\n]*")
_REASON = re.compile(
    r"\s*(?:[,;]?\s+(?:because|since|as|which|where|so that|when|for|with|if|after|per)\b|\s\((?=[a-z]{2,})|—|–\s).*", re.DOTALL
)


def stated_answer(text: str) -> str | None:
    """Returns the answer of a text without a box, by the rules above; None where it has none."""
    if (whole := _whole_text(text.strip())) is not None:
        return whole
    for anchor in list(_ANCHOR.finditer(text))[: -MAX_ANCHORS - 1 : -1]:
        if (answer := _after_anchor(text[anchor.end() : anchor.end() + MAX_STATED])) is not None:
            return answer
    return _in_last_sentence(text)


MAX_ANCHORS = 20
"""How many of the last "the answer is" are looked at, where nothing that could be an answer follows them."""

MAX_STATED = 1000
"""Characters after "the answer is" in which the answer is looked for."""


def _after_anchor(rest: str) -> str | None:
    lead = _LEAD.match(rest)
    rest = rest[lead.end() if lead else 0 :]
    if formula := _FORMULA.match(rest):
        return _with_following(rest, formula)
    sentence = _first_sentence(rest)
    if _NO_ANSWER.match(sentence):
        return None
    if bold := _BOLD.match(sentence):
        return _inside(bold)
    if _PLAIN_MATHS.match(sentence) or sentence.startswith("$"):
        return _trimmed(_REASON.sub("", sentence.lstrip("$") if sentence.count("$") % 2 else sentence))
    if found := _last_in(sentence):
        return found
    words = _REASON.sub("", sentence)
    return _trimmed(words) if 0 < len(words.split()) <= MAX_WORDS else None


def _whole_text(text: str) -> str | None:
    """Returns a text that is nothing but maths: `\\frac{10}{9}`, `x = 5`, `1 000`."""
    if len(text) > 200 or "\n" in text or "$" in text or "&" in text or "##" in text or not re.search(r"\d|\\", text):
        return None
    return _trimmed(text) if re.search(r"[A-Za-z]{3}|[A-Za-z]{2}\d|[!?]|[⺀-鿿]", _COMMAND.sub(" ", text)) is None else None


_COMMAND = re.compile(r"\\(?:text|mathrm|operatorname|mathbf)\s*\{[^{}]*\}|\\(?:begin|end)\{[a-z]+\*?\}|\\[A-Za-z]+")

MAX_WORDS = 6
"""Words that an answer in words may have where nothing else marks it."""


_NO_ANSWER = re.compile(
    r"(?:in)?correct\b|wrong\b|right\b|not\b|as follows|obtained\b|found\b|unique\b|below\b|above\b", re.IGNORECASE
)


def _with_following(rest: str, formula: re.Match[str]) -> str:
    """Returns a formula, and with it those that "and", "or" or a comma adds: `$x = 1$ and $y = 2$`; a % after it too."""
    parts, end = [_inside(formula)], formula.end()
    while joint := _FORMULA_JOINT.match(rest, end):
        further = _FORMULA.match(rest, joint.end())
        if further is None or _kind(_inside(further)) != _kind(parts[0]):
            break
        parts.append(_inside(further))
        end = further.end()
    return ", ".join(parts) + ("%" if rest.startswith(("%", "\\%"), end) else "")


_FORMULA_JOINT = re.compile(r"\s*(?:,\s*and|,\s*or|,|and|or)\s*")


def _kind(formula: str) -> str:
    """Returns which formulas make a list with this one: values, values of names (`x = 1`), none."""
    return "value" if "=" not in formula else "named" if re.match(r"\s*[A-Za-z](?:_\w)?\s*=[^=]*$", formula) else formula


def _in_last_sentence(text: str) -> str | None:
    """Returns what the last sentence that has bold text, a formula or a number says."""
    ends = [0, *(end.end() for end in _SENTENCE_END.finditer(_masked(text))), len(text)]
    for start, end in zip(ends[-2::-1], ends[:0:-1], strict=True):
        if (found := _last_in(text[start:end])) is not None:
            return found
    return None


def _masked(text: str) -> str:
    """Returns a text of the same length in which full stops inside formulas end no sentence."""

    def mask(formula: re.Match[str]) -> str:
        stop = "\x01" if _inside(formula, "") != _inside(formula, ".") else "_"  # the full stop inside it ends the sentence
        return "_" * (len(formula[0]) - 1) + stop

    return _FORMULA.sub(mask, text)


def _last_in(sentence: str) -> str | None:
    """Returns the last bold text that holds an answer, or what follows the last "is", the last formula, the last number."""
    for bold in reversed(list(_BOLD.finditer(sentence))):
        inside = _inside(bold)
        if formulas := list(_FORMULA.finditer(inside)):
            return _trimmed(_inside(formulas[-1]))
        if numbers := list(_NUMBER.finditer(inside)):
            return numbers[-1][0]
    if (said := _after_verb(sentence)) is not None:
        return said
    if formulas := [formula for formula in _FORMULA.finditer(sentence) if _inside(formula)]:
        telling = [formula for formula in formulas if not _BARE_NAME.fullmatch(_inside(formula))]
        later = [number[0] for number in _NUMBER.finditer(sentence, formulas[-1].end())]
        return _inside(telling[-1]) if telling else later[-1] if later else _inside(formulas[-1])
    if "\\" in sentence:
        runs = [run[0] for run in _BARE_LATEX.finditer(sentence) if re.search(r"\\[A-Za-z]", run[0])]
        if runs:
            return _trimmed(runs[-1])
    numbers = list(_NUMBER.finditer(sentence))
    sums = [run for run in _SUM.finditer(sentence) if re.search("[A-Za-z=^]", run[0])]
    if sums and (not numbers or sums[-1].end() >= numbers[-1].end()):
        return str(sums[-1][0])
    return str(numbers[-1][0]) if numbers else None


_BARE_NAME = re.compile(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?|[A-Za-z]\([a-z]\)")
_TERM = r"[-(]{0,3}(?:\d+(?:\.\d+)?[a-z]?(?![A-Za-z\d])|(?<![A-Za-z])[A-Za-z](?![A-Za-z']))\){0,3}"
# 6 - 5i, p - q, x = 3: what a sentence says without dollars.
_SUM = re.compile(rf"(?<![\w$.,)]){_TERM}(?:\s*[-+*/^=]\s*{_TERM})+")
_VERB = re.compile(
    r"\b(?:is|are|equals|equal to|be|becomes|gives?(?: us)?|was|were|so|thus|hence|therefore|gets?|yields?|finds?(?: that)?"
    r"|ha(?:ve|s)|total of|leaves us with|see that|follows that|conclude that|obtain)\b[:,\s]*"
)


_ASIDE = re.compile(
    r"\b(?:of|for|when|where|with|since|because|if|than|at|satisf\w+|to|from|in|by|all|whenever|as|over|between|that|per|mod)\s+"
    r"(?:(?:all|any|each|every|some|the|integers?|reals?|values?|there are|only|point|both|positive)\s+)*$",
    re.IGNORECASE,
)


def _after_verb(sentence: str) -> str | None:
    """Returns the last formula after an "is" or "so", if all later ones are asides; or the only number after the last "is"."""
    masked = _masked(sentence)
    verbs = {verb.end() for verb in _VERB.finditer(masked)}
    led = {(lead.end() if (lead := _LEAD.match(sentence, place)) else place) for place in verbs}
    formulas = list(_FORMULA.finditer(sentence))
    for i, formula in reversed(list(enumerate(formulas))):
        if _BARE_NAME.fullmatch(_inside(formula)):
            continue
        if formula.start() in led:
            return _with_following(sentence[formula.start() :], _FORMULA.match(sentence[formula.start() :]) or formula)
        before = sentence[: formula.start()]
        listed = i and _FORMULA_JOINT.fullmatch(before[formulas[i - 1].end() :])
        if not (_ASIDE.search(before) or (listed and _kind(_inside(formula)) == _kind(_inside(formulas[i - 1])))):
            break
    rest = sentence[max(verbs) :] if verbs else ""
    numbers = [] if "\\" in rest or "_" in masked[len(sentence) - len(rest) :] else list(_NUMBER.finditer(rest))
    return numbers[0][0] if len(numbers) == 1 and not _SUM.search(rest) else None


def _inside(found: re.Match[str], marks: str = ".,;:。") -> str:
    """Returns what a formula or bold text holds: of several lines of an alignment the last."""
    inside = next(group for group in found.groups() if group is not None)
    if "\\\\" in inside and "&" in inside and not re.search(r"matrix|array|cases", inside):
        inside = _ALIGNED.sub("", inside)
        inside = [line for line in inside.split("\\\\") if line.strip()][-1].replace("&", "")
    return _trimmed(inside, marks)


_ALIGNED = re.compile(r"\\(?:begin|end)\{[a-z]+\*?\}")


def _first_sentence(text: str) -> str:
    text = text.lstrip()
    end = _SENTENCE_END.search(_masked(text))
    line = text.find("\n")
    ends = [place for place in (end.start() if end else -1, line) if place >= 0]
    return text[: min(ends)] if ends else text


def _trimmed(text: str, marks: str = ".,;:。") -> str:
    text = text.strip().strip('*_`"').strip()
    return text.rstrip(marks).strip()
