"""`report.html`: the result of a run on one page that needs nothing else, no network and no script.

Prompts and outputs are data that somebody else wrote. They reach the page through the template's escaping alone, a content
security policy forbids scripts and every outside resource, and they are folded away until a reader asks for them.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dgr_lightning import plots, results
from dgr_lightning.curves import STEP
from dgr_lightning.engines import STOP
from dgr_lightning.metrics import SIDES, VERDICTS
from dgr_lightning.plots import Axis, Point, Series
from dgr_lightning.records import read_jsonl, write_text
from dgr_lightning.summary import Summary

_SHOWN_CHARACTERS = 4000
_LOSS_POINTS = 160
# Values that say where things lie on a machine.
_PATHS = ("path", "trace_template", "answer_template", "meta_thinking", "phrases")


def write_html(run_dir: Path, summary: Summary) -> Path:
    """Writes `report.html` into a run directory and returns its path.

    The page is made of the summary and of what the stages left there: config.yaml, metrics.csv, the examples before and after
    refinement with the verdicts on them, and the outputs of the evaluation. What a run does not have is not on its page.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": results.percent, "signed": results.signed, "stack": _stack, "cut": _cut}
    config = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    outputs = _outputs(run_dir, summary)
    text = environment.get_template("report.html.jinja").render(
        summary=summary,
        both="tuned" in summary,
        title=_title(summary, config),
        subtitle=_subtitle(summary, config),
        style=Markup(plots.palette_style() + plots.CHART_STYLE),
        rows=list(results.result_rows(summary)),
        tax={name: results.measure_of(value) for name, value in summary.get("tax", {}).items()},
        judge_note=results.JUDGE_NOTE,
        health_titles=[*results.HEALTH_TITLES.values(), "mean tokens", "of finished ones"],
        health=[(task, [*cells, *_length_cells(outputs.get(task, {}))]) for task, cells in results.health_rows(summary)],
        facts=list(results.run_facts(summary)),
        charts=[Markup(drawn) for drawn in curves(run_dir / "metrics.csv")],
        rewrites=_choose_rewrites(run_dir) if "refinement" in summary else [],
        tasks=[(task, list(_choose_outputs(sides))) for task, sides in outputs.items()],
        settings=list(_settings(config)),
    )
    write_text(run_dir / "report.html", text)
    return run_dir / "report.html"


def curves(metrics: Path) -> list[str]:
    """Returns the charts of a metrics.csv: loss, and what the probes measured; none where there is no file or no row."""
    if not metrics.exists():
        return []
    with open(metrics, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns: dict[str, list[Point]] = {}
    for row in rows:
        for name, cell in row.items():
            if name != STEP and cell:
                columns.setdefault(name, []).append(Point(float(row[STEP]), float(cell)))
    if not columns:
        return []
    last = max(point.x for points in columns.values() for point in points)
    steps = Axis("optimizer step", 0, max(last, 1))
    charts = []
    if loss := columns.get("train/loss"):
        top = max(point.y for point in loss) or 1.0
        width = max(1, len(loss) // _LOSS_POINTS)
        title = "Training loss" if width == 1 else f"Training loss, mean of {width} steps"
        charts.append(plots.chart(title, [Series("", _means(loss, width))], steps, Axis("", 0, 1.05 * top)))
    by_task = [(name, points) for name, points in columns.items() if name.startswith("probe/") and name.endswith("/accuracy")]
    tasks = [
        Series(name.split("/")[1], points, 2 + index % (plots.NUM_COLORS - 2), look="thin dashed")
        for index, (name, points) in enumerate(by_task)
    ]
    if mean := columns.get("probe/reasoning_accuracy"):
        lines = [*(tasks if len(tasks) > 1 else []), Series("mean", mean, 0, "circle")]
        charts.append(plots.chart("Reasoning accuracy, probes", lines, steps, plots.rates("")))
    safety = [
        Series(title, columns[name], color, marker)
        for name, title, color, marker in (
            ("probe/refusal_rate", "refusal of harmful", 0, "circle"),
            ("probe/over_refusal_rate", "over-refusal of benign", 1, "square"),
        )
        if name in columns
    ]
    if safety:
        charts.append(plots.chart("Refusals, probes", safety, steps, plots.rates("")))
    return charts


def _means(points: Sequence[Point], width: int) -> list[Point]:
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [Point(group[-1].x, sum(point.y for point in group) / len(group)) for group in groups]


# --- Rewrites -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rewrite:
    """An example before and after refinement, each part as (name, source, rewrite). With a reason, it was rejected."""

    id: str
    label: str
    prompt: str
    reason: str | None
    parts: list[tuple[str, str, str]]


def _choose_rewrites(run_dir: Path, num_kept: int = 2) -> list[Rewrite]:
    """Returns `num_kept` kept rewrites of each label, and for each reason the first that was rejected for it."""
    sources = {row["id"]: row for row in _rows_of(run_dir / "stages" / "sources.jsonl")}
    chosen, counts = [], Counter[str]()
    for row in _rows_of(run_dir / "refined.jsonl"):
        source = sources.get(row["id"])
        if source is None or not row["refined"] or row["reason"] is not None or counts[row["label"]] == num_kept:
            continue
        counts[row["label"]] += 1
        parts = [(part, source[part], row[part]) for part in ("trace", "answer")]
        chosen.append(Rewrite(row["id"], row["label"], row["prompt"], None, parts))
    reasons = set()
    for verdict in _rows_of(run_dir / "stages" / "verdicts.jsonl"):
        source = sources.get(verdict["id"])
        if source is None or not verdict["faults"] or verdict["faults"][0] in reasons:
            continue
        reasons.add(verdict["faults"][0])
        parts = [(verdict["part"], source[verdict["part"]], verdict["text"])]
        chosen.append(Rewrite(source["id"], source["label"], source["prompt"], verdict["faults"][0], parts))
    return chosen


def _rows_of(path: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(path)) if path.exists() else []


# --- Outputs --------------------------------------------------------------------------------------------------------------

Rows = dict[tuple[str, int], dict[str, Any]]


@dataclass(frozen=True)
class OutputPair:
    """One sample of a problem, as the models answered it: `outputs` holds side → line of `<task>.jsonl`."""

    change: str
    prompt: str
    gold: str | None
    outputs: dict[str, dict[str, Any]]


def _outputs(run_dir: Path, summary: Summary) -> dict[str, dict[str, Rows]]:
    """Returns task → side → (id, sample) → line, as far as it is on disk."""
    found: dict[str, dict[str, Rows]] = {}
    for side in SIDES:
        for task in summary.get(side, {}).get("tasks", {}):
            path = run_dir / "evaluation" / side / f"{task}.jsonl"
            if path.exists():
                found.setdefault(task, {})[side] = {(row["id"], row["sample"]): row for row in read_jsonl(path)}
    return found


def _length_cells(sides: Mapping[str, Rows]) -> list[str]:
    """Returns mean tokens and the verdicts of the finished outputs alone, `base → tuned`."""
    tokens, finished = [], []
    for rows in sides.values():
        tokens.append(f"{sum(row['num_tokens'] for row in rows.values()) / len(rows):,.0f}")
        verdicts = [row[VERDICTS[row["kind"]]] for row in rows.values() if row["finish_reason"] == STOP]
        finished.append(f"{100 * sum(verdicts) / len(verdicts):.1f}" if verdicts else "–")
    return [" → ".join(tokens), " → ".join(finished)]


def _choose_outputs(sides: Mapping[str, Rows], num_each: int = 1, num_same: int = 1) -> Iterator[OutputPair]:
    """Yields a few samples of a task: for each change of the verdict `num_each`, and `num_same` where it did not change."""
    counts: dict[str, int] = {}
    first = next(iter(sides.values()))
    pairs = []
    for key, row in first.items():
        outputs = {side: rows[key] for side, rows in sides.items() if key in rows}
        verdicts = [_verdict(output) for output in outputs.values()]
        change = " → ".join(dict.fromkeys(verdicts))
        most = num_each if len(set(verdicts)) > 1 else num_same
        if counts.get(change, 0) < most:
            counts[change] = counts.get(change, 0) + 1
            pairs.append(OutputPair(change, row["prompt"], row.get("gold"), outputs))
    yield from sorted(pairs, key=lambda pair: "→" not in pair.change)


def _verdict(row: Mapping[str, Any]) -> str:
    if row["kind"] == "reasoning":
        return "right" if row["correct"] else "wrong"
    return "refused" if row["refused"] else "not refused"


# --- Text -----------------------------------------------------------------------------------------------------------------


def _title(summary: Summary, config: Mapping[str, Any]) -> str:
    model, data, refine = (config[part]["name"] for part in ("model", "data", "refine"))
    if "training" in summary:
        return f"{model} · {data} · {refine}"
    return f"Refinement of {data} by {model}" if "refinement" in summary else f"Evaluation of {model}"


def _subtitle(summary: Summary, config: Mapping[str, Any]) -> str:
    facts = [f"run {summary['config_hash']}"]
    if "training" in summary:
        steps, sft = summary["training"]["steps"], config["sft"]
        facts += [f"seed {config['seed']}", f"learning rate {sft['lr']:g}", f"{steps} steps of {sft['batch_size']} examples"]
    return " · ".join(facts)


def _settings(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields the config's keys that are set, dotted, with their values; of those that hold a path only that they do."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key in _PATHS:
            if value:
                yield name, ", ".join(value) if isinstance(value, Mapping) else "a local file"
        elif isinstance(value, Mapping) and value:
            yield from _settings(value, f"{name}.")
        elif value not in (None, {}, [], ""):
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else f"{value}"


def _stack(text: str) -> str:
    """Returns `98.7 (97.1–99.4)` with the interval in small under the value."""
    from markupsafe import Markup

    value, bracket, interval = text.partition(" (")
    return Markup("{}<small>{}</small>").format(value, interval.rstrip(")")) if bracket else value


def _cut(text: str) -> str:
    """Returns a text with the middle of a very long one left out."""
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    half = _SHOWN_CHARACTERS // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"
