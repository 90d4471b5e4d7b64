"""The stages of a run and their order: source set → refinement → training → evaluation → report.

The only module that knows the order. A stage reads what the one before it left in the run directory and writes a record of its
own, `stages/<stage>.json`, when it is done; so the same command takes up a run wherever it stopped, and another `evaluation=`
trains nothing again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from dgr_lightning import models, report, sources
from dgr_lightning.config import Config
from dgr_lightning.console import console, say
from dgr_lightning.evaluation import evaluate_model, tax
from dgr_lightning.judge import KeywordJudge
from dgr_lightning.records import content_hash, read_json, read_refined, write_json, write_jsonl
from dgr_lightning.rundir import Place, RunDir, evaluation_hash
from dgr_lightning.summary import build_summary
from dgr_lightning.tasks import task_content

if TYPE_CHECKING:
    from dgr_lightning.chat import Chat
    from dgr_lightning.engines import Engine
    from dgr_lightning.evaluation import Measures

REFINED = "refined.jsonl"


def train(cfg: Config, place: Place) -> None:
    """Runs every stage, or what is missing of them, and shows what came out."""
    base = Target(models.locate(cfg.model), cfg)
    with _open(cfg, base, place, "train") as run:
        evaluated = _Evaluated(run, cfg)
        if run.done and evaluated.is_current:
            return _show_finished(run)
        _announce(run, cfg)
        refined = _refine(run, cfg, base)
        trained = _fit(run, cfg, base)
        evaluated.forget()
        judge = KeywordJudge(cfg.judge.phrases)
        seconds: dict[str, float] = {}
        before = _measure(run, cfg, base, judge, "base", models.cache_dir() / "evaluations", seconds)
        tuned = Target(run.path / "model", cfg)
        after = _measure(run, cfg, tuned, judge, "tuned", run.path / "evaluation" / "stored", seconds)
        tuned.release()
        report.write(
            run.path,
            build_summary(
                run.hash,
                {"refine": refined["seconds"], "train": trained["seconds"], **seconds},
                rejected=refined["rejected"],
                base=before,
                tuned=after,
                tax=tax(run.path / "evaluation", before, after),
                refinement=refined["refinement"],
                training=trained["training"],
            ),
        )
        evaluated.mark()


def refine(cfg: Config, place: Place) -> None:
    """Runs sources and refinement alone."""
    base = Target(models.locate(cfg.model), cfg)
    with _open(cfg, base, place, "refine") as run:
        if run.done:
            return _show_finished(run)
        _announce(run, cfg)
        refined = _refine(run, cfg, base)
        report.write(
            run.path,
            build_summary(
                run.hash, {"refine": refined["seconds"]}, rejected=refined["rejected"], refinement=refined["refinement"]
            ),
        )


def evaluate(cfg: Config, place: Place) -> None:
    """Measures one model: any Hugging Face folder."""
    model = Target(models.locate(cfg.model), cfg)
    with _open(cfg, model, place, "evaluate") as run:
        if run.done:
            return _show_finished(run)
        _announce(run, cfg)
        seconds: dict[str, float] = {}
        store = models.cache_dir() / "evaluations"
        measures = _measure(run, cfg, model, KeywordJudge(cfg.judge.phrases), "base", store, seconds)
        report.write(run.path, build_summary(run.hash, seconds, base=measures))


class Target:
    """A model that stages work with: its folder and content; tokenizer and weights are loaded on first need.

    Attributes:
        folder: the Hugging Face folder.
    """

    def __init__(self, folder: Path, cfg: Config) -> None:
        """Names the model; nothing is loaded yet."""
        self.folder, self._cfg = folder, cfg

    @cached_property
    def content(self) -> str:
        """What the model is: the recipe of one that the project grew, else a hash of the folder's files."""
        if self._cfg.model.recipe is not None and self._cfg.model.path is None and (self.folder / "recipe.json").exists():
            return content_hash(read_json(self.folder / "recipe.json"))
        return models.model_content(self.folder)

    @cached_property
    def chat(self) -> Chat:
        """Tokenizer and template."""
        from dgr_lightning.chat import Chat

        return Chat.load(self.folder, self._cfg.model.chat_style, self._cfg.model.trust_remote_code)

    @cached_property
    def _engine(self) -> Engine:
        from dgr_lightning.engines.transformers import TransformersEngine

        cfg = self._cfg
        model = models.load_model(self.folder, cfg.engine.precision, cfg.trainer.accelerator, cfg.model.trust_remote_code)
        return TransformersEngine(model, self.chat.pad_id, cfg.engine.precision, cfg.engine.batch_size)

    def engine(self) -> Engine:
        """Returns the engine over the weights, loading them the first time."""
        return self._engine

    def release(self) -> None:
        """Gives the weights' memory back before another stage loads its own."""
        self.__dict__.pop("_engine", None)


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


def _stage(run: RunDir, name: str, title: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns a stage's record: what is on disk, or what `compute` returns, with the seconds that it took."""
    path = run.path / "stages" / f"{name}.json"
    if path.exists():
        record = read_json(path)
        say(f"[dim]{title}: done before[/]")
        return record
    console.rule(f"[bold]{title}[/]", align="left")
    start = monotonic()
    record = compute()
    record["seconds"] = monotonic() - start
    write_json(path, record)
    return record


def _refine(run: RunDir, cfg: Config, target: Target) -> dict[str, Any]:
    """Sources → refined set: `refined.jsonl`, with the figures of the stage as its record."""
    from dgr_lightning.refinement.outcome import show_refinement
    from dgr_lightning.refinement.run import refine as refine_examples
    from dgr_lightning.shift import mean_nll

    def compute() -> dict[str, Any]:
        source = sources.load_examples(cfg.data, cfg.seed)
        say(f"{len(source.examples)} examples of {escape(cfg.data.name)}; rejected: {source.rejected or 'none'}")
        console.print(target.chat.show(source.examples[0]))
        # The shipped phrases, here and in probes: judge= is for evaluation, and not part of what determines the model.
        judge = KeywordJudge()
        refinement = refine_examples(
            source.examples, cfg, target.chat, target.engine, target.content, judge, models.cache_dir()
        )
        before = mean_nll(target.engine(), target.chat, source.examples, cfg.sft.max_length)
        changed = any(example.refined for example in refinement.examples) or len(refinement.examples) < len(source.examples)
        after = mean_nll(target.engine(), target.chat, refinement.examples, cfg.sft.max_length) if changed else before
        show_refinement(refinement.stats, before, after)
        write_jsonl(run.path / REFINED, refinement.examples)
        write_jsonl(run.path / "stages" / "sources.jsonl", source.examples)
        write_jsonl(run.path / "stages" / "verdicts.jsonl", refinement.verdicts)
        figures = asdict(refinement.stats) | {"nll_before": before, "nll_after": after}
        return {"rejected": source.rejected, "refinement": figures}

    return _stage(run, "refine", "Refinement", compute)


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


class _Evaluated:
    """Which evaluation a run's summary was written for."""

    def __init__(self, run: RunDir, cfg: Config) -> None:
        self._path = run.path / "stages" / "evaluate.json"
        self._hash = evaluation_hash(cfg, {"evaluation": _tasks_content(cfg)})

    @property
    def is_current(self) -> bool:
        """Whether the summary on disk is this evaluation's."""
        return self._path.exists() and read_json(self._path)["hash"] == self._hash

    def forget(self) -> None:
        """Before outputs are written anew: until `mark`, the summary on disk belongs to none."""
        self._path.unlink(missing_ok=True)

    def mark(self) -> None:
        """The summary on disk is this evaluation's."""
        write_json(self._path, {"hash": self._hash})


def _announce(run: RunDir, cfg: Config) -> None:
    say(f"[bold]{escape(cfg.model.name)}[/] · {escape(cfg.data.name)} · {escape(cfg.refine.name)} → {escape(str(run.path))}")


def _show_finished(run: RunDir) -> None:
    say(f"{escape(str(run.path))} is done; overwrite=true would start it anew.")
    report.show(run.path)
