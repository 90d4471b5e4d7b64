"""The histogram in the terminal: every value is in a bar, and what lies beyond a limit is red."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from dgr_lightning.report.histogram import histogram

LINE = re.compile(r"\s*([\d,]+) –\s+([\d,]+)\s+([█▏▎▍▌▋▊▉]*) ([\d,]+)")


def bars(text):
    found = (LINE.fullmatch(line) for line in text.plain.splitlines())
    return [tuple(int(number.replace(",", "")) for number in line.group(1, 2, 4)) for line in found]


@pytest.mark.parametrize("values", [[7], [3, 3, 3], list(range(1000)), [12, 345, 6789, 6789], [0]])
def test_every_value_is_in_one_bar_and_ranges_touch(values):
    found = bars(histogram(values))
    assert sum(count for *_, count in found) == len(values) and len(found) <= 13
    assert all(after[0] == before[1] + 1 for before, after in pairwise(found))
    for low, high, count in found:
        assert count == sum(low <= value <= high for value in values)


def test_a_range_ends_at_the_limit_and_what_lies_beyond_is_red():
    text = histogram([10, 20, 30, 90, 100], limit=33)
    found = bars(text)
    assert any(high == 33 for _, high, _ in found) and sum(count for low, _, count in found if low > 33) == 2
    red = [text.plain[span.start : span.end] for span in text.spans if span.style == "red"]
    assert len(red) == sum(low > 33 for low, *_ in found)


def test_a_limit_that_nothing_reaches_changes_nothing():
    assert histogram([1, 2, 3], limit=99) == histogram([1, 2, 3])
