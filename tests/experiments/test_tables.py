from dgr_lightning.experiments.grid import finished_runs
from dgr_lightning.experiments.tables import rate_cells, table, tax_cells
from tests.helpers.study_runs import finished_run


def test_the_first_column_is_aligned_left_and_the_others_right():
    assert table(["arm", "seeds"], [["dgr", "3"]]) == "| arm | seeds |\n| --- | ---: |\n| dgr | 3 |"


def test_one_base_has_no_interval_and_no_prediction(tmp_path):
    finished_run(tmp_path, "dgr", 1e-3, 0, 1, 0.5)
    runs = finished_runs(tmp_path / "grid")
    assert rate_cells(runs) == ["50.0", "–", "100.0", "–", "10.0", "–"]
    assert tax_cells(runs) == ["40.0", "–"]


def test_bases_that_differ_widen_both(tmp_path):
    for base, accuracy in enumerate((0.4, 0.5, 0.6)):
        finished_run(tmp_path, "dgr", 1e-3, base, 1, accuracy)
    cells = rate_cells(finished_runs(tmp_path / "grid"))
    assert cells[0].startswith("50.0 (23.") and cells[1].startswith("-") is False
    low, high = (float(end) for end in cells[1].split(" to "))
    assert low < 23 and high > 77
