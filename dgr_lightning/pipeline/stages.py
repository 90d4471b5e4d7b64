"""The work of each stage: functions of the resolved config, a model and the run directory.

A function reads what earlier stages left in the run directory, writes its own files there and returns its record. `commands`
has the order, `execution` the processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from dgr_lightning.cache import cache_dir
from dgr_lightning.config import Config, JudgeConfig
from dgr_lightning.console import say
from dgr_lightning.data.row_parsing import format_counts
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.evaluation.subjects import outputs_folder
from dgr_lightning.example import BENIGN, Example, ExampleFile, read_refined
from dgr_lightning.files import read_json, write_jsonl
from dgr_lightning.pipeline.example_view import show_examples
from dgr_lightning.pipeline.overlap import load_sources, measured_prompts, num_shared, overlap
from dgr_lightning.pipeline.row_checks import check_rows
from dgr_lightning.pipeline.set_lengths import set_lengths
from dgr_lightning.refinement.outcome import RefinementStats
from dgr_lightning.scoring.cached_judge import open_cached_judge
from dgr_lightning.scoring.judge import open_judge
from dgr_lightning.scoring.panel import Panel

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Chat

REFINED = "refined.jsonl"
SOURCES = "stages/sources.jsonl"
BASE_SCORES = "stages/base_traces.jsonl"


def refinement(cfg: Config, target: ModelHandle, run: Path, *, measures: bool) -> dict[str, Any]:
    """Sources → refined set: `refined.jsonl`, with the figures of the stage as its record.

    Args:
        cfg: the run.
        target: the model that rewrites.
        run: the run directory.
        measures: whether the run evaluates a model, whose prompts the source set may hold.
    """
    from dgr_lightning.refinement.refine import refine_set
    from dgr_lightning.refinement.strategy import strategy_of

    measured = measured_prompts(cfg) if measures else {}
    source = load_sources(cfg, measured)
    rejected = source.rejected
    if shared := overlap((example.prompt for example in source.examples), measured):
        say(f"[yellow]the model is measured on prompts of the source set: {format_counts(shared)}; data.drop_overlap=true[/]")
    check_rows(source.examples, target.chat)
    if repeated := num_shared([example.prompt for example in source.examples], source.part_sizes):
        say(f"[yellow]{repeated} prompts stand in more than one part of data.mix; they are kept in each[/]")
    labels, names = (
        dict(Counter(values)) for values in zip(*((one.label, one.source) for one in source.examples), strict=True)
    )
    counts = f"{format_counts(labels)}; from {escape(format_counts(names))}"
    say(f"{len(source.examples)} examples of {escape(cfg.data.name)} ({counts}); rejected: {rejected or 'none'}")
    set_lengths(source.examples, target.chat, cfg).check()
    _show_first(source.examples[0], target.chat, run / "stages" / "first_example.txt")
    write_jsonl(run / SOURCES, source.examples)
    del source  # from here on examples are read from the disk, one by one
    examples = ExampleFile(run / SOURCES)
    # Where it is no guard, the configured judge is for evaluation alone and does not determine the model: refinement and probes
    # then judge by the default one.
    judge = open_cached_judge(cfg if strategy_of(cfg.refine).uses_guard else replace(cfg, judge=JudgeConfig()))
    refinement = refine_set(examples, cfg, target, judge, cache_dir())
    write_jsonl(run / REFINED, refinement.examples)
    write_jsonl(run / "stages" / "verdicts.jsonl", refinement.verdicts())
    figures = asdict(refinement.stats)
    data = {"rejected": rejected, "labels": labels, "sources": names}
    return data | {"refinement": figures, "match": refinement.match and refinement.match.figures}


def shift(cfg: Config, target: ModelHandle, run: Path) -> dict[str, Any]:
    """How far the refined set lies from the target, before and after; with that, the refined set as a dataset with its card."""
    from dgr_lightning.refinement.dataset import FOLDER, card, write_dataset
    from dgr_lightning.refinement.outcome import show_refinement
    from dgr_lightning.refinement.strategy import strategy_of
    from dgr_lightning.shift import measure

    stats = RefinementStats(**read_json(run / "stages" / "refine.json", "refinement")["refinement"])
    changed = stats.refined > 0 or stats.tokens_after != stats.tokens_before
    record = measure.measure_set(run / SOURCES, run / REFINED, run / "stages", cfg, target, changed=changed)
    show_refinement(stats, measure.mean_nll(record["before"]), measure.mean_nll(record["after"]))
    nll = {when: measure.mean_nll(record[when]) for when in ("before", "after")}
    templates = {step.template.name: step.template.text for step in strategy_of(cfg.refine).steps()}
    write_dataset(run / REFINED, run / FOLDER, card(cfg, stats, nll, target.model_hash, templates))
    return record


def training(cfg: Config, target: ModelHandle, run_hash: str, run: Path) -> dict[str, Any]:
    """Refined set → `model/`, with curves. On several ranks, all of them call this."""
    from dgr_lightning.training.fit import fit
    from dgr_lightning.training.probes import Probes

    target.release()
    probe = (
        Probes(cfg, target.chat, open_judge(replace(cfg, judge=JudgeConfig())))
        if cfg.probes.every and cfg.probes.tasks
        else None
    )
    result = fit(target.folder, target.chat, read_refined(run / REFINED), cfg, run, probe, run_hash)
    return {"training": asdict(result)}


def base_traces(cfg: Config, base: ModelHandle, run: Path) -> dict[str, Any]:
    """What the divergence needs of the base: traces, in the cache, and how likely they are to it."""
    from dgr_lightning.shift import measure

    return {"traces": measure.measure_base(cfg, base, cache_dir() / "traces", run / BASE_SCORES)}


def divergence(cfg: Config, base: ModelHandle, tuned: ModelHandle, run: Path) -> dict[str, Any]:
    """How far tuning moved the model."""
    from dgr_lightning.shift import measure

    with base:
        stores = (cache_dir() / "traces", run / "stages" / "traces")
        return measure.measure_models(cfg, base, tuned, stores, run / BASE_SCORES)


def discard_output(stage: Callable[[Path], Any]) -> None:
    """Runs a stage for what it stores in the cache, where other machines read it; its other output is discarded."""
    with TemporaryDirectory() as scratch:
        stage(Path(scratch))


def evaluation(cfg: Config, model: ModelHandle, store: Path, subject: str, run: Path) -> dict[str, Any]:
    """Evaluates a model: its outputs, with the estimates as the record, and what several judges say beside them."""
    from dgr_lightning.evaluation.evaluate import evaluate_model
    from dgr_lightning.evaluation.judged_rates import judges_apart

    estimates = evaluate_model(model, cfg, Panel.of(cfg, open_cached_judge), outputs_folder(run, subject), store, subject)
    return {
        "estimates": {
            task: {metric: estimate.to_json() for metric, estimate in metrics.items()} for task, metrics in estimates.items()
        },
        "judges": judges_apart(run, subject, estimates),
    }


def _show_first(example: Example, chat: Chat, file: Path) -> None:
    show_examples(chat, [example], file)
    if example.label != BENIGN:
        say(f"[dim]its text, which is labelled {example.label}, is in {escape(str(file))}[/]")
