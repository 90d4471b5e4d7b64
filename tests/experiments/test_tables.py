import pytest

from dgr_lightning.experiments.grid import finished_runs
from dgr_lightning.experiments.tables import rate_cells, replicated_rate, replicated_tax, table, tax_cells
from dgr_lightning.files import write_jsonl
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


def _write_outputs(run, first_wrong):
    """The base is right on the first 90 of 100 problems; the tuned model on half of them, beginning at one."""
    for side in ("base", "tuned"):
        right = range(90) if side == "base" else [(first_wrong + i) % 100 for i in range(50)]
        rows = [{"id": f"p{i}", "sample": 0, "kind": "reasoning", "correct": i in right} for i in range(100)]
        write_jsonl(run / "evaluation" / side / "gsm8k.jsonl", rows)
        for task, kind in (("strongreject", "harmful"), ("xstest", "benign")):
            write_jsonl(run / "evaluation" / side / f"{task}.jsonl", [{"id": "q", "sample": 0, "kind": kind, "refused": True}])


def test_an_interval_holds_what_the_problems_give_to_all_runs_and_no_more(tmp_path):
    widths = {}
    for name, shift in (("unknown", None), ("same problems", 0), ("other problems", 33)):
        for base in range(3):
            run = finished_run(tmp_path / name, "dgr", 1e-3, base, 1, 0.5)
            if shift is not None:
                _write_outputs(run, base * shift)
        runs = finished_runs(tmp_path / name / "grid")
        found = replicated_rate(runs, "reasoning_accuracy").mean
        widths[name] = found.high - found.low
        assert found.value == 0.5 and replicated_tax(runs).mean.value == pytest.approx(0.4)
    assert widths["unknown"] == pytest.approx(widths["same problems"])  # a problem that is hard for one is hard for all
    assert widths["other problems"] < 0.3 * widths["unknown"]
