"""`report.html`: the result of a run on one page that needs nothing else, no network and no script.

Prompts and outputs are data that somebody else wrote. They reach the page through the template's escaping alone, a content
security policy forbids scripts and every outside resource, and they are folded away until a reader asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dgr_lightning.files import read_json, write_text
from dgr_lightning.report import charts, examples, lines, plots
from dgr_lightning.report.summary import Summary

_SHOWN_CHARACTERS = 4000
# Values that say where things lie.
_PLACES = {"path", "trace_template", "answer_template", "response_template", "meta_thinking", "phrases"}
_PLACES |= {"embedding", "tuned", "url", "ray_address"}


def write_html(run_dir: Path, summary: Summary, judge_note: str) -> Path:
    """Writes `report.html` into a run directory and returns its path.

    The page is made of the summary and of what the stages left there: config.yaml, metrics.csv, the shift's record, the
    examples before and after refinement with the verdicts on them, and the outputs of the evaluation. What a run does not have
    is not on its page.

    Args:
        run_dir: the run directory.
        summary: of the run.
        judge_note: the judge's sentence on what kind of measure its rates are.
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
    environment.filters |= {"percent": lines.percent, "plain": lines.plain, "signed": lines.signed}
    environment.filters |= {"stack": _stack, "cut": _cut}
    config = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    outputs = examples.outputs(run_dir, summary)
    shift = read_json(run_dir / "stages" / "shift.json") if "shift" in summary else None
    text = environment.get_template("page.html.jinja").render(
        summary=summary,
        both="tuned" in summary,
        title=_title(summary, config),
        subtitle=_subtitle(summary, config),
        style=Markup(plots.palette_style() + plots.CHART_STYLE),
        rows=list(lines.result_rows(summary)),
        tax={name: lines.measure_of(value) for name, value in summary.get("tax", {}).items()},
        judge_note=judge_note,
        health_titles=[*lines.HEALTH_TITLES.values(), "mean tokens", "of finished ones"],
        health=[(task, [*cells, *examples.length_cells(outputs.get(task, {}))]) for task, cells in lines.health_rows(summary)],
        facts=list(lines.run_facts(summary)),
        charts=[Markup(drawn) for drawn in charts.curves(run_dir / "metrics.csv")],
        shift=shift and _shift(summary, shift),
        rewrites=examples.kept_rewrites(run_dir) if "refinement" in summary else [],
        checks=examples.checks_shown(run_dir) if "refinement" in summary else [],
        tasks=[(task, list(examples.choose_outputs(sides))) for task, sides in outputs.items()],
        settings=list(_settings(config)),
    )
    write_text(run_dir / "report.html", text)
    return run_dir / "report.html"


def _shift(summary: Summary, record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the page says of the distribution shift."""
    from markupsafe import Markup

    similarity = record["similarity"]
    drawn = [*charts.nll_charts(record), *(charts.similarity_charts(similarity) if similarity else [])]
    return {
        "num_examples": record["before"]["examples"],
        "rows": list(lines.shift_rows(summary)),
        "charts": [Markup(chart) for chart in drawn],
        "similarities": [
            (title, measure, similarity[key]["unrelated"], similarity[key]["cut"])
            for key, title, measure in lines.similarity_rows(summary)
        ],
        "divergences": list(lines.divergence_rows(summary)),
    }


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
    """Yields the config's keys that are set, dotted, with their values; of those that say where a thing lies, only that."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key in _PLACES and value != "target":
            if value:
                yield name, ", ".join(value) if isinstance(value, Mapping) else "given"
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
