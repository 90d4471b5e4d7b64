"""`report.html`: the result of a run as one self-contained page, without scripts and without network access.

Prompts and outputs are untrusted text. They reach the page only through the template's escaping, a content security policy
forbids scripts and every outside resource, and they stay folded until a reader opens them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dgr_lightning.config.keys import is_private
from dgr_lightning.config.shareable import shareable
from dgr_lightning.evaluation.budget import budget_file
from dgr_lightning.files import read_json, write_text
from dgr_lightning.report import charts, estimates, examples, lines, svg
from dgr_lightning.report.summary import Summary
from dgr_lightning.tasks.metrics import FINISHED, TOKENS

if TYPE_CHECKING:
    import jinja2

_SHOWN_CHARACTERS = 4000


def write_html(run_dir: Path, summary: Summary, judge_note: str) -> Path:
    """Writes `report.html` into a run directory and returns its path.

    The page shows the summary and what the stages left in the directory: config.yaml, metrics.csv, the record of the shift, the
    examples before and after refinement with their verdicts, and the outputs of the evaluation. Sections without data are left
    out.

    Args:
        run_dir: the run directory.
        summary: of the run.
        judge_note: what kind of measures the judges' rates are, a line a judge.
    """
    from markupsafe import Markup

    config = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    outputs = examples.read_outputs(run_dir, summary)
    shift = read_json(run_dir / "stages" / "shift.json") if "shift" in summary else None
    text = (
        environment()
        .get_template("page.html.jinja")
        .render(
            summary=summary,
            both="tuned" in summary,
            title=_title(summary, config),
            subtitle=_subtitle(summary, config),
            style=Markup(svg.palette_style() + svg.CHART_STYLE),
            results=list(lines.result_lines(summary)),
            tax={name: estimates.estimate_of(value) for name, value in summary.get("tax", {}).items()},
            judge_notes=judge_note.splitlines(),
            judges=list(lines.judge_lines(summary)),
            agreement=list(lines.agreement_lines(summary)),
            health_titles=[*lines.HEALTH_TITLES.values(), "mean tokens", "of finished ones"],
            health=[
                (task, [*cells, *examples.length_cells(outputs.get(task, {}))]) for task, cells in lines.health_lines(summary)
            ],
            facts=list(lines.run_facts(summary)),
            beside=lines.beside_table(summary, without=(TOKENS, FINISHED)),
            budget=[Markup(drawn) for drawn in charts.budget_charts(budget_file(run_dir))],
            charts=[Markup(drawn) for drawn in _curves(run_dir)],
            shift=shift and _shift(summary, shift),
            rewrites=examples.kept_rewrites(run_dir) if "refinement" in summary else [],
            checks=examples.quality_checks(run_dir) if "refinement" in summary else [],
            tasks=[(task, list(examples.choose_outputs(sides))) for task, sides in outputs.items()],
            settings=list(_settings(config)),
        )
    )
    write_text(run_dir / "report.html", text)
    return run_dir / "report.html"


def _curves(run_dir: Path) -> list[str]:
    return [
        *charts.curve_charts(run_dir / "metrics.csv"),
        *charts.checkpoint_charts(run_dir / "evaluation" / "checkpoints.csv"),
    ]


def environment() -> jinja2.Environment:
    """Returns what renders the templates of this folder: everything escaped, with the filters for estimates."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": estimates.percent, "number": estimates.number, "signed": estimates.signed}
    environment.filters |= {"value": estimates.without_interval, "interval": estimates.interval_alone}
    environment.filters |= {"stack": _stack, "shorten": _shorten}
    return environment


def _shift(summary: Summary, record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the section on the distribution shift; `record` is the stage's own, with the histograms."""
    from markupsafe import Markup

    similarity = record["similarity"]
    distributions = [*charts.nll_charts(record), *(charts.similarity_charts(similarity) if similarity else [])]
    return {
        "num_examples": record["before"]["examples"],
        "parts": list(lines.shift_lines(summary)),
        "charts": [Markup(chart) for chart in distributions],
        "similarities": [
            (title, cosine, similarity[key]["unrelated"], similarity[key]["cut"])
            for key, title, cosine in lines.similarity_lines(summary)
        ],
        "divergences": list(lines.divergence_lines(summary)),
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
    """Yields each key that is set, dotted, with its value; of private keys only that they are set, or their entries' names."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if is_private(name) and value != "target":
            if value:
                yield name, ", ".join(value) if isinstance(value, Mapping) else "given"
        elif isinstance(value, Mapping) and value:
            yield from _settings(value, f"{name}.")
        elif value not in (None, {}, [], ""):
            shown = shareable(value)
            yield name, ", ".join(map(str, shown)) if isinstance(shown, list) else f"{shown}"


def _stack(text: str) -> str:
    """Returns `98.7 (97.1–99.4)` with the interval in small print under the value."""
    from markupsafe import Markup

    value, bracket, interval = text.partition(" (")
    return Markup("{}<small>{}</small>").format(value, interval.rstrip(")")) if bracket else value


def _shorten(text: str) -> str:
    """Returns a text, a very long one without its middle."""
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    half = _SHOWN_CHARACTERS // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"
