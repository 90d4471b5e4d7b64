from xml.etree import ElementTree

import pytest

from dgr_lightning.report import svg


def test_chart_is_well_formed_and_places_points_on_their_axes():
    points = [svg.Point(1e-4, 0.0, 0.0, 0.1), svg.Point(1e-3, 0.5, 0.4, 0.6), svg.Point(1e-2, 1.0, 0.9, 1.0)]
    x = svg.Axis("rate <&>", 1e-4, 1e-2, log=True, ticks=(1e-4, 1e-3, 1e-2))
    root = ElementTree.fromstring(svg.chart("a <b>", [svg.Series("s", points, marker="circle")], x, svg.Axis("", 0, 1)))
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter("circle")]
    left, middle, right = circles
    assert middle[0] - left[0] == pytest.approx(right[0] - middle[0], abs=0.2)
    assert left[1] > middle[1] > right[1]
    assert len([line for line in root.iter("line") if line.get("class") == "bar s0"]) == 3


def test_picture_is_one_svg_with_a_background_for_light_and_dark():
    chart = svg.chart("t", [svg.Series("a", [svg.Point(0, 1)])], svg.Axis("x", 0, 1), svg.rate_axis(""))
    text = svg.picture("title", [chart] * 3, [svg.Series("a", (), marker="square")], columns=2)
    root = ElementTree.fromstring(text)
    assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == 3
    assert "prefers-color-scheme: dark" in text and "var(--page)" in text


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 2.1), (0, 0.004), (0, 12345), (-3, 7)])
def test_ticks_are_round_and_inside(low, high):
    ticks = svg.round_ticks(low, high)
    assert 3 <= len(ticks) <= 6 and all(low <= tick <= high for tick in ticks)
