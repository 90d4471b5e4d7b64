"""The table of a plan's stages."""

from io import StringIO

import pytest
from rich.console import Console

from dgr_lightning.report import stages
from dgr_lightning.report.stages import StageEstimate, StagesPlan, readable_time, show_stages


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (204, "3.4 min"), (5399, "90.0 min"), (7560, "2.1 h"), (4e6, "1,111.1 h")]
)
def test_times_are_as_people_write_them(seconds: float, text: str) -> None:
    assert readable_time(seconds) == text


def shown(monkeypatch: pytest.MonkeyPatch, *rows: StageEstimate) -> str:
    stream = StringIO()
    monkeypatch.setattr(stages, "console", Console(file=stream, width=120))
    show_stages(StagesPlan("8 × H100 SXM", rows, ["this is assumed"], ["that is too much"]))
    return " ".join(stream.getvalue().split())


def test_what_is_known_adds_up_and_what_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = StageEstimate("refinement", 708_000, 30, 2**20), StageEstimate("training", 1.9e6, 90, 3 * 2**30)
    text = shown(monkeypatch, first, second)
    assert "Stages on 8 × H100 SXM, estimated" in text and "refinement 708k 30 s 1.0 MiB" in text
    assert "training 1.9M 90 s 3.0 GiB" in text.replace("1.5 min", "90 s") and "all together 2.6M 2.0 min 3.0 GiB" in text
    assert text.index("that is too much") < text.index("· this is assumed")
    text = shown(monkeypatch, first, StageEstimate("training", None, None))
    assert "training – not estimated –" in text and "all together 708k 30 s and more 1.0 MiB" in text
    assert "all together – not estimated –" in shown(monkeypatch, StageEstimate("training", None, None))
