"""metrics.csv keeps every digit and survives a resume."""

from pathlib import Path

import pandas
import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.training.curves import STEP, Curves, read_curves
from dgr_lightning.writing import CannotWrite
from tests.helpers.full_disks import files_no_larger_than

THIRD = 1 / 3


def write_some(path: Path) -> None:
    with Curves(path) as curves:
        curves.write(0, {"probe/refusal_rate": 0.125})
        curves.write(1, {"train/loss": THIRD})
        curves.write(2, {"train/loss": 0.1 + 0.2, "probe/refusal_rate": 1.0})


def test_every_curve_can_be_plotted_and_no_digit_is_lost(tmp_path: Path) -> None:
    write_some(tmp_path / "metrics.csv")
    table = pandas.read_csv(tmp_path / "metrics.csv")
    assert list(table.columns) == [STEP, "probe/refusal_rate", "train/loss"]
    assert list(table[STEP]) == [0, 1, 2]
    loss = table[[STEP, "train/loss"]].dropna()
    assert list(loss["train/loss"]) == [THIRD, 0.1 + 0.2]
    assert list(table.dropna(subset="probe/refusal_rate")[STEP]) == [0, 2]


def test_a_row_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    curves = Curves(tmp_path / "metrics.csv")
    curves.write(1, {"train/loss": 2.0})
    curves.write(2, {"train/loss": 1.0})
    assert (tmp_path / "metrics.csv").read_text() == f"{STEP},train/loss\n1,2.0\n2,1.0\n"
    curves.close()


def test_rows_behind_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write_some(path)
    whole = path.read_text()
    with Curves(path, resumed_step=1) as curves:
        assert 0 in curves and 1 in curves and 2 not in curves
        assert curves.column("train/loss") == {1: THIRD}
        assert curves.column("probe/refusal_rate") == {0: 0.125}
        curves.write(2, {"train/loss": 0.1 + 0.2, "probe/refusal_rate": 1.0})
    assert path.read_text() == whole


def test_a_row_that_a_crash_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write_some(path)
    whole = path.read_text()
    path.write_text(whole + "3,,0.1234")
    with Curves(path, resumed_step=3) as curves:
        assert 3 not in curves
        curves.write(3, {"train/loss": 0.25})
    assert path.read_text() == whole + "3,,0.25\n"


def test_a_row_that_does_not_fit_is_said_and_made_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    with pytest.raises(CannotWrite, match=f"{path} could not be written"), Curves(path) as curves, files_no_larger_than(100):
        for step in range(1, 20):
            curves.write(step, {"train/loss": THIRD})
    last = step - 1
    with Curves(path, last) as curves:
        curves.write(last + 1, {"train/loss": 0.5})
    assert list(pandas.read_csv(path)[STEP]) == list(range(1, last + 2))


@pytest.mark.parametrize(
    "content", ["a,b\n1,2\n", f"{STEP},x\none,two\n", f"{STEP},x\n1,2,3\n", f"{STEP},x\n\n", f"{STEP},x,x\n"]
)
def test_damaged_curves_are_one_message_for_who_resumes_and_for_who_reads(content: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    for read in (Curves, read_curves):
        with pytest.raises(UserError, match=r"metrics.csv, behind \d whole rows: damaged. Write overwrite=true"):
            read(path)
