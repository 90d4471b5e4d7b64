from dgr_lightning.experiments.tables import rate_cells, table


def test_the_first_column_is_aligned_left_and_the_others_right():
    assert table(["arm", "seeds"], [["dgr", "3"]]) == "| arm | seeds |\n| --- | ---: |\n| dgr | 3 |"


def test_rates_are_pooled_and_an_undefined_one_is_a_dash():
    rate = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}
    undefined = {"value": None, "low": None, "high": None, "n": 0}
    headline = {"reasoning_accuracy": rate, "refusal_rate": undefined, "over_refusal_rate": rate}
    assert rate_cells([{"tuned": {"headline": headline}}]) == ["50.0 (40.0–60.0)", "–", "50.0 (40.0–60.0)"]
