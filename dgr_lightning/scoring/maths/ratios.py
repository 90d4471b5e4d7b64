"""Whether two ratios (2:3) or two times of day (4:30 p.m.) are the same."""

from __future__ import annotations

import re

from dgr_lightning.scoring.maths.sampled_values import same_expression
from dgr_lightning.scoring.maths.three_valued import all_same

_TIME = re.compile(r"(\d{1,2}):(\d\d)\s*(?:\\text\{\s*)?([ap])?\.?\s*(?:m\.?)?\s*\}?", re.I)


def same_ratio(answer: str, gold: str) -> bool | None:
    """Returns whether two ratios, or two times of day, are the same; None where a side of one cannot be read.

    A ratio may be scaled (2:4 for 1:2), or written as a fraction; a time may leave out a.m. or p.m.
    """
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
        return all_same(results)
    if {len(ratio), len(gold_ratio)} == {1, 2}:
        return same_expression(answer.replace(":", "/"), gold.replace(":", "/"))
    return False
