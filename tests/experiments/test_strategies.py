"""The table of strategies: what arms drop is not trained on, and seeds are pooled."""

from dgr_lightning.experiments.strategies import ARMS, markdown


def summary(value: float, *, fallback: dict[str, int], tokens_after: int, trained_on: int = 100) -> dict:
    def measure(value: float) -> dict:
        return {"value": value, "low": max(0, value - 0.1), "high": min(1, value + 0.1), "n": 100}

    rates = {name: measure(value) for name in ("reasoning_accuracy", "refusal_rate", "over_refusal_rate")}
    figures = {"examples": 100, "refined": 90, "fallback": fallback, "tokens_before": 3000, "tokens_after": tokens_after}
    return {
        "base": {"headline": rates},
        "tuned": {"headline": rates},
        "refinement": figures | {"nll_before": 11.0, "nll_after": 0.5},
        "versions": {"torch": "2"},
        "date": "2026-11-21",
        "trained_on": trained_on,
    }


def row(table: str, arm: str) -> list[str]:
    return next(line.split(" | ") for line in table.splitlines() if line.startswith(f"| {arm} |"))


def test_kept_originals_count_and_dropped_examples_do_not():
    runs = {
        "dgr": [
            summary(0.9, fallback={"empty": 10}, tokens_after=3000),
            summary(0.7, fallback={"empty": 20}, tokens_after=3200),
        ],
        "thinksafe": [summary(0.5, fallback={"guard": 10}, tokens_after=2700, trained_on=90)],
    }
    table = markdown(runs)
    assert row(table, "dgr")[1:6] == ["2", "100", "empty 15", "30.0 → 31.0", "11.00 → 0.50"]
    assert row(table, "dgr")[6].startswith("80.0 (")
    assert row(table, "thinksafe")[1:5] == ["1", "90", "guard 10", "30.0 → 30.0"]


def test_every_arm_is_a_choice_of_refine():
    from dgr_lightning.cli.overrides import choices

    assert {arm for arm in ARMS if not arm.startswith("length-matched")} | {"length-matched"} == set(choices("refine"))
