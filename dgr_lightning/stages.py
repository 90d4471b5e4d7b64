"""The stages of a run and their order: source set → refinement → training → evaluation → report.

The only module that knows the order. A stage reads what the one before it left in the run directory and writes a record of its
own, `stages/<stage>.json`, when it is done; so the same command takes up a run wherever it stopped, and another `evaluation=`
trains nothing again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from dgr_lightning import models, report, sources
from dgr_lightning.config import Config
from dgr_lightning.console import console, say
from dgr_lightning.evaluation import evaluate_model, tax
from dgr_lightning.judge import KeywordJudge
from dgr_lightning.records import (
    HARMFUL,
    Example,
    ExampleFile,
    content_hash,
    read_json,
    read_refined,
    write_json,
    write_jsonl,
    write_text,
)
from dgr_lightning.refinement.outcome import RefinementStats
from dgr_lightning.rundir import Place, RunDir, evaluation_hash
from dgr_lightning.summary import build_summary
from dgr_lightning.target import Target
from dgr_lightning.tasks import task_content
from dgr_lightning.tuning import check_model

if TYPE_CHECKING:
    from dgr_lightning.chat import Chat
    from dgr_lightning.evaluation import Measures

REFINED = "refined.jsonl"
SOURCES = "stages/sources.jsonl"


def train(cfg: Config, place: Place) -> None:
    """Runs every stage, or what is missing of them, and shows what came out."""
    with Target(models.locate(cfg.model), cfg) as base, _open(cfg, base, place, "train") as run:
        evaluation = evaluation_hash(cfg, {"evaluation": _tasks_content(cfg)})
        measured = _Measured(run, evaluation, _set_measure(cfg), _models_measure(cfg, None))
        if run.done and measured.is_current:
            return _show_finished(run)
        _announce(run, cfg)
        check_model(base.folder, cfg.tuning, cfg.model.trust_remote_code)  # now, not after hours of refinement
        refined = _refine(run, cfg, base)
        shift = _shift(run, cfg, base, RefinementStats(**refined["refinement"]))
        trained = _fit(run, cfg, base)
        measured.forget()
        judge = KeywordJudge(cfg.judge.phrases)
        seconds: dict[str, float] = {}
        before = _measure(run, cfg, base, judge, "base", models.cache_dir() / "evaluations", seconds)
        with Target(run.path / "model", cfg) as tuned:
            after = _measure(run, cfg, tuned, judge, "tuned", run.path / "evaluation" / "stored", seconds)
            shift = _tuning_shift(run, cfg, base, tuned, shift)
        report.write(
            run.path,
            build_summary(
                run.hash,
                {"refine": refined["seconds"], "shift": shift["seconds"], "train": trained["seconds"], **seconds},
                rejected=refined["rejected"],
                base=before,
                tuned=after,
                tax=tax(run.path / "evaluation", before, after),
                refinement=_figures(refined, shift),
                shift=shift,
                training=trained["training"],
            ),
        )
        measured.mark()


def refine(cfg: Config, place: Place) -> None:
    """Runs sources and refinement alone."""
    with Target(models.locate(cfg.model), cfg) as base, _open(cfg, base, place, "refine") as run:
        tuned_content = None if cfg.shift.tuned is None else models.model_content(Path(cfg.shift.tuned).expanduser())
        measured = _Measured(run, _set_measure(cfg), _models_measure(cfg, tuned_content))
        if run.done and measured.is_current:
            return _show_finished(run)
        _announce(run, cfg)
        measured.forget()
        refined = _refine(run, cfg, base)
        shift = _shift(run, cfg, base, RefinementStats(**refined["refinement"]))
        if cfg.shift.tuned is not None:
            with Target(Path(cfg.shift.tuned).expanduser(), cfg) as tuned:
                shift = _tuning_shift(run, cfg, base, tuned, shift)
        seconds = {"refine": refined["seconds"], "shift": shift["seconds"]}
        figures = _figures(refined, shift)
        report.write(run.path, build_summary(run.hash, seconds, rejected=refined["rejected"], refinement=figures, shift=shift))
        measured.mark()


def evaluate(cfg: Config, place: Place) -> None:
    """Measures one model: any Hugging Face folder."""
    with Target(models.locate(cfg.model), cfg) as model, _open(cfg, model, place, "evaluate") as run:
        if run.done:
            return _show_finished(run)
        _announce(run, cfg)
        seconds: dict[str, float] = {}
        store = models.cache_dir() / "evaluations"
        measures = _measure(run, cfg, model, KeywordJudge(cfg.judge.phrases), "base", store, seconds)
        report.write(run.path, build_summary(run.hash, seconds, base=measures))


def _open(cfg: Config, model: Target, place: Place, kind: Any) -> RunDir:
    identities: dict[str, Any] = {"model": model.content}
    if kind != "evaluate":
        identities["data"] = sources.data_content(cfg.data)
    if kind == "train":
        probes = cfg.probes.tasks if cfg.probes.every else []
        identities["probes"] = [task_content(task, "probe", cfg.probes.path.get(task)) for task in probes]
    if kind == "evaluate":
        identities["evaluation"] = _tasks_content(cfg)
    return RunDir.open(cfg, identities, place, kind)


def _tasks_content(cfg: Config) -> list[str]:
    return [task_content(task, "evaluation", cfg.evaluation.path.get(task)) for task in cfg.evaluation.tasks]


def _stage(
    run: RunDir, name: str, title: str, compute: Callable[[], dict[str, Any]], measured: str | None = None
) -> dict[str, Any]:
    """Returns a stage's record: what is on disk, or what `compute` returns, with the seconds that it took.

    Args:
        run: the run directory.
        name: of the record, `stages/<name>.json`.
        title: for the screen.
        compute: does the work.
        measured: hash of what the stage depends on beyond the run hash; a record under another one is made anew.
    """
    path = run.path / "stages" / f"{name}.json"
    if path.exists():
        record = read_json(path)
        if record.get("measured") == measured:
            say(f"[dim]{title}: done before[/]")
            return record
    console.rule(f"[bold]{title}[/]", align="left")
    start = monotonic()
    record = compute()
    record |= {"seconds": monotonic() - start, "measured": measured}
    write_json(path, record)
    return record


def _refine(run: RunDir, cfg: Config, target: Target) -> dict[str, Any]:
    """Sources → refined set: `refined.jsonl`, with the figures of the stage as its record."""
    from dgr_lightning.refinement.run import refine as refine_examples

    def compute() -> dict[str, Any]:
        source = sources.load_examples(cfg.data, cfg.seed)
        rejected = source.rejected
        say(f"{len(source.examples)} examples of {escape(cfg.data.name)}; rejected: {rejected or 'none'}")
        _show_first(source.examples[0], target.chat, run.path / "stages" / "first_example.txt")
        write_jsonl(run.path / SOURCES, source.examples)
        del source  # from here on examples are read from the disk, one by one
        examples = ExampleFile(run.path / SOURCES)
        # ThinkSafe's guard is the configured judge. For the rest, the shipped phrases, here and in probes: judge= is for
        # evaluation, and no part of what determines the model.
        judge = KeywordJudge(cfg.judge.phrases) if cfg.refine.strategy == "thinksafe" else KeywordJudge()
        refinement = refine_examples(examples, cfg, target.chat, target.engine, target.content, judge, models.cache_dir())
        write_jsonl(run.path / REFINED, refinement.examples)
        write_jsonl(run.path / "stages" / "verdicts.jsonl", refinement.verdicts())
        figures = asdict(refinement.stats)
        return {"rejected": rejected, "refinement": figures, "match": refinement.match and refinement.match.figures}

    return _stage(run, "refine", "Refinement", compute)


def _show_first(example: Example, chat: Chat, file: Path) -> None:
    """Shows an example token by token. Harmful text stays out of terminals and logs: all of it is in the file alone."""
    from rich.console import Console

    harmful = example.label == HARMFUL
    console.print(chat.show(example, hide_text=harmful))
    if harmful:
        say(f"[dim]its text, which is labelled harmful, is in {escape(str(file))}[/]")
    text = StringIO()
    Console(file=text, width=120).print(chat.show(example, num_shown=100_000))
    write_text(file, text.getvalue())


def _shift(run: RunDir, cfg: Config, target: Target, stats: RefinementStats) -> dict[str, Any]:
    """How far the set lies from the target, before and after; with that, the refined set as a dataset with its card."""
    from dgr_lightning import gap
    from dgr_lightning.refinement.dataset import FOLDER, card, write_dataset
    from dgr_lightning.refinement.outcome import show_refinement
    from dgr_lightning.refinement.strategies import steps

    def compute() -> dict[str, Any]:
        changed = stats.refined > 0 or stats.tokens_after != stats.tokens_before
        record = gap.measure_set(run.path / SOURCES, run.path / REFINED, run.path / "stages", cfg, target, changed=changed)
        show_refinement(stats, gap.mean_nll(record["before"]), gap.mean_nll(record["after"]))
        nll = {when: gap.mean_nll(record[when]) for when in ("before", "after")}
        templates = {step.template.name: step.template.text for step in steps(cfg.refine)}
        write_dataset(run.path / REFINED, run.path / FOLDER, card(cfg, stats, nll, target.content, templates))
        return record

    return _stage(run, "shift", "Shift", compute, _set_measure(cfg))


def _tuning_shift(run: RunDir, cfg: Config, base: Target, tuned: Target, shift: dict[str, Any]) -> dict[str, Any]:
    """How far tuning moved the model; returns the record of `_shift` with that in it."""
    from dgr_lightning import gap

    if not cfg.shift.prompts:
        return shift

    def compute() -> dict[str, Any]:
        return gap.measure_models(cfg, base, tuned, models.cache_dir() / "traces", run.path / "stages" / "traces")

    moved = _stage(run, "divergence", "Divergence from the base", compute, _models_measure(cfg, tuned.content))
    rewrites = shift["similarity"] and shift["similarity"]["rewrites"]
    similarity = {"rewrites": rewrites, "outputs": moved["outputs"]} if rewrites or moved["outputs"] else None
    record = shift | {"kl": moved["kl"], "similarity": similarity}
    write_json(run.path / "stages" / "shift.json", record)
    return record


def _figures(refined: dict[str, Any], shift: dict[str, Any]) -> dict[str, Any]:
    """Returns `refinement` of summary.json."""
    from dgr_lightning.gap import mean_nll

    return refined["refinement"] | {"nll_before": mean_nll(shift["before"]), "nll_after": mean_nll(shift["after"])}


def _fit(run: RunDir, cfg: Config, target: Target) -> dict[str, Any]:
    """Refined set → `model/`, with curves."""
    from dgr_lightning.probes import Probes
    from dgr_lightning.sft import fit

    def compute() -> dict[str, Any]:
        target.release()
        probe = Probes(cfg, target.chat, KeywordJudge()) if cfg.probes.every and cfg.probes.tasks else None
        result = fit(target.folder, target.chat, read_refined(run.path / REFINED), cfg, run.path, probe, run.hash)
        return {"training": asdict(result)}

    return _stage(run, "train", "Training", compute)


def _measure(
    run: RunDir, cfg: Config, model: Target, judge: KeywordJudge, which: str, store: Path, seconds: dict[str, float]
) -> Measures:
    """Evaluates one model into `evaluation/<which>/` and adds the seconds it took."""
    console.rule(f"[bold]Evaluation of the {which} model[/]", align="left")
    start = monotonic()
    out = run.path / "evaluation" / which
    measures = evaluate_model(
        model.engine, model.chat, cfg, cfg.evaluation.tasks, judge, out, store, model.content, label=which
    )
    seconds[f"evaluate_{which}"] = monotonic() - start
    model.release()
    return measures


def _set_measure(cfg: Config) -> str:
    """Returns a hash of what is measured of the set's shift, and how, beyond the run hash."""
    return content_hash(cfg.shift.limit, *_measured_with(cfg), cfg.sft.max_length)


def _models_measure(cfg: Config, tuned: str | None) -> str | None:
    """Returns a hash of what is measured between base and tuned, and how; None where nothing is.

    Args:
        cfg: the config.
        tuned: content of the tuned model, where it does not follow from the run.
    """
    shift = cfg.shift
    if not shift.prompts:
        return None
    prompts = [task_content(task, "probe", cfg.probes.path.get(task)) for task in cfg.probes.tasks]
    return content_hash(shift.prompts, shift.max_new_tokens, shift.seed, *_measured_with(cfg), prompts, tuned)


def _measured_with(cfg: Config) -> list[Any]:
    folder = cfg.shift.embedding
    embedding = folder if folder in (None, "target") else models.model_content(Path(folder).expanduser())
    return [embedding, cfg.engine.identity, cfg.engine.precision, cfg.engine.max_length]


class _Measured:
    """Which measurements a run's summary was written for; no part of the run hash, they can change under a trained model."""

    def __init__(self, run: RunDir, *hashes: str | None) -> None:
        self._path = run.path / "stages" / "measured.json"
        self._hashes = list(hashes)

    @property
    def is_current(self) -> bool:
        """Whether the summary on disk is of these measurements."""
        return self._path.exists() and read_json(self._path)["hashes"] == self._hashes

    def forget(self) -> None:
        """Before outputs are written anew: until `mark`, the summary on disk belongs to none."""
        self._path.unlink(missing_ok=True)

    def mark(self) -> None:
        """The summary on disk is of these measurements."""
        write_json(self._path, {"hashes": self._hashes})


def _announce(run: RunDir, cfg: Config) -> None:
    say(f"[bold]{escape(cfg.model.name)}[/] · {escape(cfg.data.name)} · {escape(cfg.refine.name)} → {escape(str(run.path))}")


def _show_finished(run: RunDir) -> None:
    say(f"{escape(str(run.path))} is done; overwrite=true would start it anew.")
    report.show(run.path)
