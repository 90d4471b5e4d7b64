r"""The final answer in a text: what stands in the box, or else what the text says its answer is.

Prompts for maths ask for a box. An output without one is read by the rules of `stated_answer`.
Nothing here is evaluated, and finding the answer is linear in the text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dgr_lightning.scoring.maths.boxes import boxes_of, joined
from dgr_lightning.scoring.maths.stated_answer import stated_answer


class Final(NamedTuple):
    """A final answer.

    Attributes:
        text: as it was written, still LaTeX.
        boxed: whether it stood in a box.
    """

    text: str
    boxed: bool


def find_final(text: str) -> Final | None:
    """Returns the final answer of a text; None for a text without one.

    A last box that is never closed is no answer: the text ended inside it. Boxes that the text joins are one answer
    (`$\\boxed{5}$ and $\\boxed{7}$`), and an empty box does not count where another one does.
    """
    text = text[-MAX_TEXT:]
    boxes = list(boxes_of(text))
    if not boxes:
        stated = stated_answer(_DRAWING.sub(" ", text[-MAX_UNBOXED:]))
        return None if stated is None else Final(stated, boxed=False)
    if boxes[-1].content is None:
        return None
    filled = [box for box in boxes if box.content and box.content.strip(" ~\\,;!$")]
    return Final(joined(text, filled) if filled else "", boxed=True)


def final_answer(text: str) -> str | None:
    """Returns the text of `find_final`."""
    final = find_final(text)
    return None if final is None else final.text


_DRAWING = re.compile(r"\[asy\](?:(?!\[asy\]).){0,8000}?\[/asy\]|```(?:asy|python)\n(?:(?!```).){0,8000}```", re.DOTALL)

MAX_TEXT = 200_000
"""Characters from the end of a text in which boxes are looked for."""

MAX_UNBOXED = 20_000
"""Characters from the end of a text without a box that are looked at."""
