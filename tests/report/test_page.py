import csv
import json
import math
import re
import tracemalloc
from copy import deepcopy
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from rich.console import Console

from dgr_lightning.config import Config
from dgr_lightning.files import read_json, write_json, write_jsonl, write_text
from dgr_lightning.report import charts, examples, page, plots, terminal
from dgr_lightning.report.lines import health_rows, result_rows
from dgr_lightning.report.summary import build_summary, check_summary
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.statistics.bootstrap import distribution, ratio_of_sums
from dgr_lightning.statistics.intervals import Estimate, rate
from dgr_lightning.tasks.metrics import Estimates

ATTACK = '<script>alert(1)</script><img src=x onerror="alert(2)">{{ 7 * 7 }}'
UNDEFINED = Estimate(None, None, None, 0)
REFINEMENT = {
    "examples": 40,
    "refined": 37,
    "fallback": {"meta_thinking": 2, "unfinished": 1},
    "tokens_before": 900,
    "tokens_after": 1100,
    "nll_before": 8.5,
    "nll_after": 0.15,
}


NOTE = KeywordJudge.note


def _nll(mean: float) -> dict:
    """What `record_nll` returns of a set whose examples all have this mean; one has no trace."""

    def part(number: int) -> dict:
        value = {"value": mean, "low": 0.9 * mean, "high": 1.1 * mean, "n": number}
        perplexity = {key: end if key == "n" else math.exp(end) for key, end in value.items()}
        means = [mean] * (number - 1) + [3 * mean]
        return {"nll": value, "perplexity": perplexity, "tokens": 10 * number} | distribution(means)

    return {"examples": 40, "trace": part(39), "answer": part(40), "both": part(40)}


SIMILAR = {"cosine": ratio_of_sums([0.7, 0.8, 1.0], [1] * 3).to_json(), "unrelated": 0.321, "cut": 2}
SIMILAR |= distribution([0.7, 0.8, 1.0], low=-1.0, high=1.0)
KL = {"value": -0.001, "low": -0.004, "high": 0.002, "n": 30}
SHIFT = {
    "hash": "ab12",
    "before": _nll(8.5),
    "after": _nll(0.15),
    "similarity": {"rewrites": SIMILAR, "outputs": None},
    "kl": {kind: {"kl": KL, "k3": KL, "tokens": 300, "cut": 1} for kind in ("all", "reasoning")},
    "seconds": 1.0,
}
UNMEASURED = SHIFT | {"after": SHIFT["before"] | {"trace": None}, "similarity": None, "kl": None}
TRAINING = {
    "steps": 20,
    "target_tokens": 5000,
    "tokens_per_second": 1234.5,
    "peak_memory_bytes": 2**29,
    "loss_first": 2.0,
    "loss_last": 0.1,
    "resumed_from_step": 0,
}
TAX = {"points": Estimate(20.0, 12.0, 28.0, 50), "relative_percent": Estimate(20.4, 12.2, None, 50)}


def _measures(accuracy: float, refusal: float) -> Estimates:
    def share(value: float) -> Estimate:
        return rate([[index < 50 * value] for index in range(50)])

    beside = {"cap_hit_rate": share(0.02), "missing_thinking_rate": share(0.0), "early_stop_rate": share(0.1)}
    return {
        "gsm8k": {"accuracy": share(accuracy), **beside},
        "strongreject": {"refusal_rate": share(refusal), **beside},
        "xstest": {"over_refusal_rate": share(0.0), **beside},
    }


def _summary(**parts) -> dict:
    whole = {"base": _measures(0.98, 0.1), "tuned": _measures(0.78, 1.0), "tax": TAX}
    whole |= {"refinement": REFINEMENT, "shift": SHIFT, "training": TRAINING, "rejected": {"no answer": 3}}
    return build_summary("0123456789ab", {"refine": 1.5, "train": 2.25}, **deepcopy(parts or whole))


def _run_dir(folder: Path) -> Path:
    """A run directory with everything a page is made of; every text in it that others write is an attack."""
    cfg = Config()
    cfg.model.name, cfg.data.name, cfg.refine.name = "micro", "micro-directrefusal", "dgr"
    cfg.model.path = "/secret/place/model"
    cfg.evaluation.path = {"gsm8k": "/secret/place/gsm8k.jsonl"}
    cfg.shift.embedding = cfg.refine.response_template = "/secret/place/embedder"
    write_text(folder / "config.yaml", yaml.safe_dump(asdict(cfg)))
    for side in ("base", "tuned"):
        for task, kind, verdict in (
            ("gsm8k", "reasoning", "correct"),
            ("strongreject", "harmful", "refused"),
            ("xstest", "benign", "refused"),
        ):
            rows = [
                {
                    "id": f"{task}-{index}",
                    "sample": 0,
                    "kind": kind,
                    "prompt": f"prompt {ATTACK}",
                    "output": f"thought {ATTACK}" + ("" if index else " and so on" * 5000),
                    "num_tokens": 10,
                    "finish_reason": "stop" if index else "length",
                    verdict: (side == "base") == (index == 1),
                }
                for index in range(4)
            ]
            write_jsonl(folder / "evaluation" / side / f"{task}.jsonl", rows)
    columns = ["trainer/global_step", "train/loss", "probe/reasoning_accuracy", "probe/refusal_rate", "probe/over_refusal_rate"]
    with open(folder / "metrics.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerow([0, "", 0.98, 0.1, 0.0])
        writer.writerows([step, 2 / step, "", "", ""] for step in range(1, 20))
        writer.writerow([20, 0.1, 0.78, 1.0, 0.0])
    examples = [
        {
            "id": f"x-{index}",
            "prompt": f"ask {ATTACK}",
            "trace": "old trace",
            "answer": "old answer",
            "label": "harmful",
            "source": "x",
        }
        for index in range(9)
    ]
    write_jsonl(folder / "stages" / "sources.jsonl", examples)
    write_json(folder / "stages" / "shift.json", SHIFT)
    refined = [e | {"trace": "new trace", "answer": "new answer", "refined": True, "reason": None} for e in examples[:4]]
    write_jsonl(folder / "refined.jsonl", [*refined, *(e | {"refined": False, "reason": "empty"} for e in examples[4:])])
    failures = {
        "x-4": ["meta_thinking"],
        "x-5": ["empty"],
        "x-6": ["empty"],
        "x-7": ["empty", "meta_thinking"],
        "x-8": ["empty"],
    }
    verdicts = []
    for example in examples:
        failed = failures.get(example["id"], [])
        verdict = {"id": example["id"], "part": "response" if example["id"] == "x-5" else "trace", "attempt": 1}
        verdict |= {"checks": {name: name in failed for name in ("unfinished", "empty", "meta_thinking")}, "num_tokens": 1234}
        verdicts.append(verdict | {"nll": None, "text": f"rewrite of {example['id']} {ATTACK}" if failed else None})
    write_jsonl(folder / "stages" / "verdicts.jsonl", verdicts)
    return folder


def _printed(summary: dict, monkeypatch: pytest.MonkeyPatch, width: int = 110) -> str:
    console = Console(width=width, record=True, file=StringIO())
    monkeypatch.setattr(terminal, "console", console)
    terminal.show_summary(summary, NOTE)
    return console.export_text()


# --- summary.json ---------------------------------------------------------------------------------------------------------


def test_summary_has_the_keys_of_schema_1_and_survives_json():
    summary = json.loads(json.dumps(_summary(), allow_nan=False))
    assert set(summary) == {
        "schema", "config_hash", "versions", "data", "base", "tuned", "tax", "refinement", "shift", "training", "wall_seconds"
    }  # fmt: skip
    assert summary["schema"] == 1
    assert set(summary["base"]["headline"]) == {"reasoning_accuracy", "refusal_rate", "over_refusal_rate"}
    assert set(summary["tuned"]["tasks"]["gsm8k"]) == {"accuracy", "cap_hit_rate", "missing_thinking_rate", "early_stop_rate"}
    assert set(summary["tax"]["points"]) == {"value", "low", "high", "n"}
    assert summary["data"] == {"rejected": {"no answer": 3}}
    assert summary["base"]["headline"]["reasoning_accuracy"]["value"] == pytest.approx(0.98)
    check_summary(summary)


def test_parts_that_do_not_apply_are_left_out():
    assert set(_summary(refinement=REFINEMENT)) == {"schema", "config_hash", "versions", "refinement", "wall_seconds"}
    assert set(_summary(base=_measures(1.0, 0.0))) == {"schema", "config_hash", "versions", "base", "wall_seconds"}


def test_what_is_undefined_is_null():
    measures = {"gsm8k": {"accuracy": UNDEFINED}}
    summary = _summary(base=measures, training=TRAINING | {"loss_first": math.nan, "tokens_per_second": math.inf})
    assert summary["base"]["tasks"]["gsm8k"]["accuracy"] == {"value": None, "low": None, "high": None, "n": 0}
    assert summary["base"]["headline"]["refusal_rate"]["value"] is None
    assert summary["training"]["loss_first"] is None and summary["training"]["tokens_per_second"] is None
    assert "NaN" not in json.dumps(summary)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema",), 2),
        (("extra",), 1),
        (("base", "headline", "refusal_rate"), None),
        (("base", "headline", "refusal_rate", "value"), math.nan),
        (("base", "headline", "refusal_rate", "high"), 0.01),
        (("base", "tasks", "gsm8k", "accuracy", "high"), 1.2),
        (("base", "tasks", "gsm8k", "pass_at_1"), {"value": 1, "low": 1, "high": 1, "n": 1}),
        (("tax", "euros"), {"value": 1, "low": 1, "high": 1, "n": 1}),
        (("refinement", "fallback", "meta_thinking"), 0.5),
        (("shift", "cosine"), None),
        (("shift", "before", "answer", "nll", "low"), 9.9),
        (("shift", "after", "both", "perplexity"), None),
        (("shift", "similarity", "outputs"), 0.5),
        (("shift", "kl", "all"), {"kl": KL}),
        (("shift", "kl", "other"), None),
        (("training", "steps"), "20"),
        (("wall_seconds", "train"), math.inf),
    ],
)
def test_check_names_the_place_of_what_is_wrong(place, value):
    summary = _summary()
    part = summary
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    with pytest.raises(ValueError, match=place[-1]):
        check_summary(summary)


def test_the_shift_is_in_a_summary_without_its_distributions_and_null_where_it_was_not_measured():
    shift = json.loads(json.dumps(_summary(refinement=REFINEMENT, shift=SHIFT)))["shift"]
    assert shift["before"]["trace"] == {key: SHIFT["before"]["trace"][key] for key in ("nll", "perplexity")}
    assert shift["similarity"] == {"rewrites": SIMILAR["cosine"], "outputs": None}
    assert shift["kl"] == {kind: {"kl": KL, "k3": KL} for kind in ("all", "reasoning")}
    shift = _summary(refinement=REFINEMENT, shift=UNMEASURED)["shift"]
    assert shift["after"]["trace"] is shift["similarity"] is shift["kl"] is None


def test_a_missing_key_is_refused():
    summary = _summary()
    del summary["refinement"]["nll_after"]
    with pytest.raises(ValueError, match="nll_after"):
        check_summary(summary)


# --- The terminal ---------------------------------------------------------------------------------------------------------


def test_rows_are_headlines_followed_by_their_tasks_with_the_difference_training_made():
    rows = list(result_rows(_summary()))
    assert [(row.title, row.is_headline) for row in rows] == [
        ("reasoning", True),
        ("gsm8k", False),
        ("refusal", True),
        ("strongreject", False),
        ("over-refusal", True),
        ("xstest", False),
    ]
    assert [row.tone for row in rows] == ["worse", "worse", "better", "better", "same", "same"]
    # The headline's is the paired tax with its sign turned, a task's the difference of its two rates.
    assert rows[0].difference == Estimate(pytest.approx(-0.2), pytest.approx(-0.28), pytest.approx(-0.12), 50)
    assert rows[3].difference is not None and rows[3].difference.value == pytest.approx(0.9)


def test_terminal_shows_every_figure_of_the_run(monkeypatch):
    text = _printed(_summary(), monkeypatch)
    for figure in (
        "98.0 (89.5–99.6)",  # base, with Wilson's interval
        "78.0 (",
        "−20.0 (−28.0, −12.0)",
        "+20.0 (+12.0, +28.0) points",
        "+20.4",
        "proxy",
        "2.0 → 2.0",
        "37 of 40",
        "3 of 40: meta thinking 2, unfinished 1",
        "8.500 → 0.150",
        "trace 8.500 → 0.150, answer 8.500 → 0.150, whole target",
        "trace 4,915 → 1.162",
        "source and rewrite 0.833 (0.700 to 1.000)",
        "all prompts −0.001 (−0.004 to 0.002), reasoning prompts",
        "900 → 1,100",
        "no answer 3",
        "refine 1.5, train 2.2",
    ):
        assert figure in text, figure


def test_terminal_shows_partial_summaries_and_undefined_measures(monkeypatch):
    assert "tuned" not in _printed(_summary(base=_measures(1.0, 0.0)), monkeypatch)
    text = _printed(_summary(refinement=REFINEMENT | {"nll_after": None}, shift=UNMEASURED), monkeypatch)
    assert "37 of 40" in text and "trace 8.500 → –" in text and "None" not in text and "similarity" not in text
    undefined = {"gsm8k": {"accuracy": UNDEFINED}}
    text = _printed(
        _summary(base=undefined, tuned=undefined, tax={"points": UNDEFINED, "relative_percent": UNDEFINED}), monkeypatch
    )
    assert "nan" not in text.lower() and "None" not in text


def test_names_from_outside_are_not_read_as_markup(monkeypatch):
    text = _printed(_summary(refinement=REFINEMENT | {"fallback": {"[red]x[/nonsense]": 1}}), monkeypatch)
    assert "[red]x[/nonsense]" in text


def test_rates_beside_the_figures_are_in_the_order_of_their_titles():
    assert dict(health_rows(_summary()))["gsm8k"] == ["2.0 → 2.0", "0.0 → 0.0", "10.0 → 10.0"]


# --- report.html ----------------------------------------------------------------------------------------------------------


def test_report_is_written_before_the_summary_that_means_done(tmp_path, monkeypatch):
    run_dir = _run_dir(tmp_path)
    order = []
    monkeypatch.setattr(terminal, "write_html", lambda folder, summary, note: order.append((folder / "summary.json").exists()))
    monkeypatch.setattr(terminal, "write_json", lambda path, value: (order.append(path.name), write_json(path, value)))
    terminal.write(run_dir, _summary(), NOTE)
    assert order == [False, "summary.json"]
    assert read_json(run_dir / "summary.json") == _summary()


def test_page_holds_table_curves_examples_and_provenance(tmp_path):
    html = page.write_html(_run_dir(tmp_path), _summary(), NOTE).read_text()
    for text in ("micro · micro-directrefusal · dgr", "0123456789ab", "safety tax", "Training loss", "Refusals, probes"):
        assert text in html, text
    for text in (
        "new trace",
        "old trace",
        "failed: meta thinking · try 2 · 1,234 tokens",
        "NLL of the trace",
        "0.321",
        "reasoning prompts",
        "−0.004 to 0.002",
        "right → wrong",
        "not refused → refused",
        "8.500 → 0.150",
    ):
        assert text in html, text
    # Three curves, three parts, one kind of similarity.
    assert html.count('<svg class="chart"') == 7
    assert "characters left out" in html


def test_text_of_others_is_escaped_and_folded(tmp_path):
    html = page.write_html(_run_dir(tmp_path), _summary(), NOTE).read_text()
    assert "<script" not in html and "<img" not in html
    assert "&lt;script&gt;alert(1)" in html and "{{ 7 * 7 }}" in html
    # Whatever others wrote stands inside a folded entry: no attack before the first one.
    unfolded = re.sub(r"<details>.*?</details>", "", html, flags=re.S)
    assert "alert(" not in unfolded
    assert "<details open" not in html


def test_page_needs_nothing_from_outside_and_names_no_place_of_this_machine(tmp_path):
    html = page.write_html(_run_dir(tmp_path), _summary(), NOTE).read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", html.replace(ATTACK, ""))
    assert "url(" not in html and "@import" not in html
    assert "/secret/place" not in html and str(tmp_path) not in html


@pytest.mark.parametrize(
    "parts", [{"refinement": REFINEMENT, "rejected": {}}, {"base": _measures(1.0, 0.5)}, {"training": TRAINING}]
)
def test_page_of_a_part_of_the_stages(tmp_path, parts):
    write_text(tmp_path / "config.yaml", yaml.safe_dump(asdict(Config())))
    html = page.write_html(tmp_path, _summary(**parts), NOTE).read_text()
    assert "None" not in html and "nan" not in html.lower().replace("provenance", "")
    assert "<svg" not in html


def test_page_shows_up_to_three_rewrites_for_every_check_that_failed(tmp_path):
    run_dir = _run_dir(tmp_path)
    checks = examples.checks_shown(run_dir)
    assert [(check.name, check.num_failed, check.num_judged) for check in checks] == [
        ("unfinished", 0, 9),
        ("empty", 4, 9),
        ("meta_thinking", 2, 9),
    ]
    assert [[rewrite.id for rewrite in check.rewrites] for check in checks] == [[], ["x-5", "x-6", "x-7"], ["x-4", "x-7"]]
    (name, source, rewrite) = checks[1].rewrites[0].parts[0]
    assert (name, source) == ("response", "old trace\n\nold answer") and rewrite.startswith("rewrite of x-5")
    assert "empty, meta thinking" in checks[2].rewrites[1].note
    html = page.write_html(run_dir, _summary(), NOTE).read_text()
    assert html.count("rewrite of x-7") == 2 and "rewrite of x-8" not in html and "rewrite of x-0" not in html
    assert "Rewrites that failed: unfinished" not in html and "Rewrites that failed: empty" in html


def test_page_of_a_large_set_holds_little_of_it_in_memory(tmp_path):
    text = "word " * 200

    def lines(number):
        for i in range(number):
            yield {"id": f"x-{i}", "prompt": text, "trace": text, "answer": text, "label": "harmful", "source": "x"}

    run_dir = tmp_path / "run"
    write_jsonl(run_dir / "stages" / "sources.jsonl", lines(5000))
    write_jsonl(run_dir / "refined.jsonl", (row | {"refined": True, "reason": None} for row in lines(5000)))
    verdict = {"part": "trace", "attempt": 0, "checks": {"empty": True}, "num_tokens": 5, "nll": None, "text": text}
    write_jsonl(run_dir / "stages" / "verdicts.jsonl", ({"id": row["id"], **verdict} for row in lines(5000)))
    tracemalloc.start()
    kept, checks = examples.kept_rewrites(run_dir), examples.checks_shown(run_dir)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) == 2 and checks[0].num_failed == 5000 and len(checks[0].rewrites) == 3
    assert peak < 2**20


def test_a_set_that_refinement_left_alone_has_one_distribution(tmp_path):
    record = SHIFT | {"after": SHIFT["before"]}
    assert ["before" in chart for chart in charts.nll_charts(record)] == [False] * 3
    assert [chart.count("<polygon") for chart in charts.nll_charts(record)] == [1] * 3
    assert [chart.count("<polygon") for chart in charts.nll_charts(SHIFT)] == [2] * 3
    assert len(charts.nll_charts(UNMEASURED)) == 3


def test_histograms_are_laid_over_each_other_in_shares_on_one_axis():
    before = {"before": distribution([0.1] * 3 + [9.99]), "after": distribution([0.12] * 8)}
    sides = {when: dict.fromkeys(("trace", "answer", "both"), before[when]) for when in before}
    chart = charts.nll_charts(sides)[0]
    first, second = ([tuple(map(float, p.split(","))) for p in line.get("points").split()] for line in _polylines(chart))
    # 200 bins are drawn as 40; the first holds three quarters of one set and all of the other.
    assert len(first) == len(second) == 2 * 40 + 2
    foot = first[0][1]
    assert (foot - first[1][1]) == pytest.approx(0.75 * (foot - second[1][1]), abs=0.2)
    assert first[-2][1] < foot and second[-2][1] == foot
    (drawn,) = charts.similarity_charts({"rewrites": SIMILAR, "outputs": None})
    assert "cosine" in drawn and "1.05" not in drawn


def _polylines(chart: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(chart).iter("polyline"))


def test_curves_start_at_step_0_and_leave_empty_cells_out(tmp_path):
    drawn = charts.curves(_run_dir(tmp_path) / "metrics.csv")
    loss, reasoning, safety = (ElementTree.fromstring(chart) for chart in drawn)
    assert [len(line.get("points").split()) for line in loss.iter("polyline")] == [20]
    (line,) = reasoning.iter("polyline")
    assert len(line.get("points").split()) == 2
    assert "0: 98.0%" in drawn[1] and "20: 78.0%" in drawn[1]
    assert len(list(safety.iter("polyline"))) == 2
    assert charts.curves(tmp_path / "none.csv") == []


def test_a_long_loss_curve_is_averaged_to_what_a_chart_can_show(tmp_path):
    text = "trainer/global_step,train/loss\n" + "".join(f"{step},{step % 2}\n" for step in range(1, 3201))
    write_text(tmp_path / "metrics.csv", text)
    (chart,) = charts.curves(tmp_path / "metrics.csv")
    (line,) = ElementTree.fromstring(chart).iter("polyline")
    heights = {point.split(",")[1] for point in line.get("points").split()}
    assert len(line.get("points").split()) == 160 and len(heights) == 1 and "mean of 20 steps" in chart


# --- Charts ---------------------------------------------------------------------------------------------------------------


def test_chart_is_well_formed_and_places_points_on_their_axes():
    points = [plots.Point(1e-4, 0.0, 0.0, 0.1), plots.Point(1e-3, 0.5, 0.4, 0.6), plots.Point(1e-2, 1.0, 0.9, 1.0)]
    x = plots.Axis("rate <&>", 1e-4, 1e-2, log=True, ticks=(1e-4, 1e-3, 1e-2))
    root = ElementTree.fromstring(plots.chart("a <b>", [plots.Series("s", points, marker="circle")], x, plots.Axis("", 0, 1)))
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter("circle")]
    left, middle, right = circles
    assert middle[0] - left[0] == pytest.approx(right[0] - middle[0], abs=0.2)
    assert left[1] > middle[1] > right[1]
    assert len([line for line in root.iter("line") if line.get("class") == "bar s0"]) == 3


def test_picture_is_one_svg_with_a_background_for_light_and_dark():
    chart = plots.chart("t", [plots.Series("a", [plots.Point(0, 1)])], plots.Axis("x", 0, 1), plots.rates(""))
    text = plots.picture("title", [chart] * 3, [plots.Series("a", (), marker="square")], columns=2)
    root = ElementTree.fromstring(text)
    assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == 3
    assert "prefers-color-scheme: dark" in text and "var(--page)" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0003, "3e-4"), (1e-5, "1e-5"), (0.00025, "2.5e-4"), (0.25, "0.25"), (12000, "12k"), (0, "0"), (50, "50")],
)
def test_numbers_read_as_people_write_them(value, text):
    assert plots.number(value) == text


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 2.1), (0, 0.004), (0, 12345), (-3, 7)])
def test_ticks_are_round_and_inside(low, high):
    ticks = plots.round_ticks(low, high)
    assert 3 <= len(ticks) <= 6 and all(low <= tick <= high for tick in ticks)
