"""The table of strategies: what arms drop is not trained on, and seeds are pooled."""

import os
import sys

import yaml

from dgr_lightning.experiments import strategies
from dgr_lightning.experiments.strategies import arms, markdown
from dgr_lightning.files import write_json, write_jsonl, write_text


def summary(value: float, *, fallback: dict[str, int], tokens_after: int, trained_on: int = 100) -> dict:
    def estimate(value: float) -> dict:
        return {"value": value, "low": max(0, value - 0.1), "high": min(1, value + 0.1), "n": 100}

    rates = {name: estimate(value) for name in ("reasoning_accuracy", "refusal_rate", "over_refusal_rate")}
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

    assert {arm for arm in arms() if not arm.startswith("length-matched")} | {"length-matched"} == set(choices("refine"))


def test_the_last_run_of_each_seed_counts(tmp_path):
    def write(name: str, arm: str, seed: int, finished: float, num_examples: int) -> None:
        write_text(tmp_path / name / "config.yaml", yaml.safe_dump({"refine": {"name": arm}, "seed": seed}))
        write_jsonl(tmp_path / name / "refined.jsonl", [{"id": f"x-{index}"} for index in range(num_examples)])
        write_json(tmp_path / name / "summary.json", {})
        os.utime(tmp_path / name / "summary.json", (finished, finished))

    write("a", "dgr", 2, 2e8, 5)
    write("b", "dgr", 1, 3e8, 4)
    write("c", "dgr", 1, 1e8, 3)
    write("d", "dgr", 9, 4e8, 2)
    write("e", "of-another-table", 1, 4e8, 2)
    runs = strategies.read_runs(tmp_path, (1, 2, 3))
    assert {arm: [summary["trained_on"] for summary in summaries] for arm, summaries in runs.items()} == {"dgr": [4, 5]}
    assert [summary["date"][:4] for summary in runs["dgr"]] == ["1979", "1976"]


def test_script_sweeps_twice_and_names_the_arms_that_are_missing(tmp_path, monkeypatch, capsys):
    sweeps = []
    monkeypatch.setattr(strategies, "sweep", lambda name, overrides: sweeps.append((name, overrides)) or True)
    monkeypatch.setattr(sys, "argv", ["strategies.py", "--seeds", "1,2", "--name", "all", "--", "data=micro-r1act"])
    monkeypatch.chdir(tmp_path)
    assert strategies.main() == 1
    alone = "refine=vanilla,dgr,dgr-answer-only,dgr-best-of-4,dgr-trace-only,filters-only,sdft,thinksafe"
    matched = ["refine=length-matched", "seed=1,2", "refine.arm=originals,rewrites", "data.limit=null"]
    assert sweeps == [("all", [alone, "seed=1,2", "data=micro-r1act"]), ("all", [*matched, "data=micro-r1act"])]
    assert "no finished run of vanilla, " in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()
