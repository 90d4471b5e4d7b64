"""What Weights & Biases gets when a run is over: its figures with their intervals, and tables of outputs.

The figures go into the summary of the W&B run that has the curves, offline as online. A table a task, `outputs/<task>`, has
each sample as every subject answered it. Which tasks have one is `logger.outputs`: by default those of the project's reasoning
and benign benchmarks, whose problems are public; harmful requests with the answers to them, and tasks from outside, only where
asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgr_lightning.config import LoggerConfig
from dgr_lightning.report.samples import Side, shown, sides_of
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.training.wandb import WandbSettings, finish_wandb, start_wandb
from dgr_lightning.visible_text import visible, without_secrets

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

_PARTS = ("verdict", "trace", "answer")


def send_results(settings: WandbSettings | None, summary: Mapping[str, Any], run_dir: Path, logger: LoggerConfig) -> None:
    """Adds the results to a W&B run whose training is over: `tuned/reasoning_accuracy` beside `probe/…`, and tables of outputs.

    Args:
        settings: of the run; None does nothing.
        summary: of summary.json.
        run_dir: holds the outputs.
        logger: which outputs go with them.
    """
    if settings is None:
        return
    run = start_wandb(settings)
    run.summary.update(dict(result_figures(summary)))
    _send_outputs(run, sides_of(run_dir, summary), logger)
    finish_wandb(run, settings, failed=False)


def result_figures(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields the results of a run by the names that W&B has them under, what is undefined left out.

    `base/<headline>`, `tuned/<headline>` and, per task, `tuned/<task>/<metric>` are rates in 0 … 1, `tax/points` hundredths of
    accuracy; each has the ends of its 95 % interval beside it, as `…_low` and `…_high`. `refinement/…` are counts, and nats per
    token.
    """
    for subject in ("base", "tuned"):
        part = summary.get(subject, {"headline": {}, "tasks": {}})
        yield from _estimates(subject, part["headline"])
        for task, metrics in part["tasks"].items():
            yield from _estimates(f"{subject}/{task}", metrics)
    yield from _estimates("tax", summary.get("tax", {}))
    for name, value in summary.get("refinement", {}).items():
        if isinstance(value, (int, float)):
            yield f"refinement/{name}", value


def output_tables(sides: Sequence[Side], logger: LoggerConfig) -> Iterator[tuple[str, list[str | int], list[list[Any]]]]:
    """Yields task, columns and rows of each table of outputs: the first `logger.rows` samples in the order of the file.

    Args:
        sides: the subjects of a run.
        logger: says which tasks have a table.
    """
    for task in dict.fromkeys(task for side in sides for task in side.tasks):
        if not _is_sent(task, logger.outputs):
            continue
        columns: list[str | int] = ["id", "sample", "prompt", "gold"]
        columns += [f"{side.label} {part}" for side in sides for part in (*_PARTS, "tokens", "ended")]
        by_side = [{(row["id"], row["sample"]): row for row in islice(side.rows(task), logger.rows)} for side in sides]
        rows = []
        for key in dict.fromkeys(key for found in by_side for key in found):
            found = [rows_of.get(key) for rows_of in by_side]
            first = next(row for row in found if row is not None)
            cells = [first["id"], first["sample"], _text(first["prompt"]), _text(first.get("gold"))]
            for row, side in zip(found, sides, strict=True):
                output = None if row is None else shown(row, side.formats)
                cells += [None if output is None else _text(getattr(output, part)) for part in _PARTS]
                cells += [row and row["num_tokens"], row and row["finish_reason"]]
            rows.append(cells)
        yield task, columns, rows


def _is_sent(task: str, outputs: str) -> bool:
    if outputs == "harmless":
        return task in TASKS and TASKS[task].kind != "harmful"
    return outputs == "all"


def _text(text: str | None) -> str | None:
    return None if text is None else visible(without_secrets(text))


def _send_outputs(run: Run, sides: Sequence[Side], logger: LoggerConfig) -> None:
    import wandb

    tables = {f"outputs/{task}": wandb.Table(columns, rows) for task, columns, rows in output_tables(sides, logger)}
    for name, table in tables.items():
        # Bound beforehand it is a file of the run; else W&B makes an artifact of it too, and logs paths of this machine.
        table.bind_to_run(run, name, "table")
    if tables:
        run.log(tables)


def _estimates(prefix: str, estimates: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    for name, estimate in estimates.items():
        for key, ending in (("value", ""), ("low", "_low"), ("high", "_high")):
            if estimate[key] is not None:
                yield f"{prefix}/{name}{ending}", estimate[key]
