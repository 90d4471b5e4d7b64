"""Runs a refinement strategy over a source set: a job an example, stored completions, quality control, fallback.

Completions are stored under everything that they depend on, and so are the verdicts of quality control on them. Nothing stored
is generated again, whatever interrupted the run or changed since; where nothing is missing, the model is not even loaded. No
text stays in memory: examples are read from their file, rewrites from the store, when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from dgr_lightning.config import Config, RefineConfig
from dgr_lightning.console import say, warn
from dgr_lightning.engines.engine import Engine
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.generation.completions import CompletionStore
from dgr_lightning.generation.jobs import Jobs, run_jobs
from dgr_lightning.generation.shards import ShardedRows
from dgr_lightning.generation.store_headers import sampling_of, sampling_settings, store_header
from dgr_lightning.hashes import content_hash
from dgr_lightning.models.chat import Chat
from dgr_lightning.refinement.deferred_judge import DeferredJudge
from dgr_lightning.refinement.judge_sources import judge_sources, rejected_rows
from dgr_lightning.refinement.length_matching import LengthMatch, match_rewrites
from dgr_lightning.refinement.outcome import Outcome, RefinementStats, count_reasons, fallback_warning
from dgr_lightning.refinement.quality import QualityControl
from dgr_lightning.refinement.refined_set import RefinedSet, target_tokens
from dgr_lightning.refinement.rewriter import Rewriter
from dgr_lightning.refinement.step import Step
from dgr_lightning.refinement.stored_step import StoredStep
from dgr_lightning.refinement.strategy import Strategy, strategy_of
from dgr_lightning.scoring.cached_judge import CachedJudge
from dgr_lightning.scoring.judge import Judge

GENERATION_VERSION = 2
"""Part of the generation hash. Raise it when this code sends or samples something else for the same config."""


@dataclass(frozen=True)
class Refinement:
    """The result of the stage.

    Attributes:
        examples: the refined set, in source order, read from the disk while it is iterated; without those that
            `refine.on_failure=drop` took out. These are the lines of `refined.jsonl`.
        stats: the figures of the stage.
        verdicts: yields the lines of `verdicts.jsonl`: `id part attempt checks num_tokens nll text`, one for each judged
            completion; `text` only where it failed a check.
        match: the two arms of a length-matched comparison; None for every other strategy.
    """

    examples: RefinedSet
    stats: RefinementStats
    verdicts: Callable[[], Iterator[dict[str, Any]]]
    match: LengthMatch | None


def refine_set(examples: Sequence[Example], cfg: Config, target: ModelHandle, judge: Judge, cache_dir: Path) -> Refinement:
    """Refines a source set with the target model.

    Args:
        examples: the source set, in source order.
        cfg: the run; `refine` says how, `engine.name` and `engine.precision` (values, not `auto`) are part of what is stored.
        target: the model; its engine is started only where a completion is missing from the store.
        judge: says whether an answer refuses.
        cache_dir: rewrites are stored in `rewrites/<generation hash>/` under it, with the verdicts on them.

    Returns:
        The refined set in source order, its figures, and every verdict.

    Raises:
        UserError: a template or the meta-thinking list cannot be used, or nothing is left with `refine.on_failure=drop`.
    """
    strategy, chat = strategy_of(cfg.refine), target.chat
    cfg = replace(cfg, refine=strategy.refine)
    ids = [example.id for example in examples]
    outcomes = {id_: Outcome() for id_ in ids}
    deferred = DeferredJudge(judge) if isinstance(judge, CachedJudge) else None
    control = QualityControl.of(cfg.refine, chat, deferred or judge)
    with closing(judge), ExitStack() as stack:
        steps = _open_steps(stack, strategy, cfg, target, control, cache_dir / "rewrites")
        chosen = _choose(ids, cfg.refine.fraction) if steps else []
        rewriter = Rewriter(examples, cfg.refine, chat, steps, outcomes)
        if chosen:
            sampling = sampling_of(cfg.refine, chat.stop_ids)
            written, judged = [step.completions for step in steps], [step.verdicts for step in steps]
            names = [ids[index] for index in chosen]
            jobs = Jobs(names, lambda i: rewriter.job(chosen[i]), written, judged)
            while True:
                run_jobs([jobs], partial(_turn, target, deferred), sampling, "rewriting")
                if deferred is None or not deferred.wanted:
                    break
                target.release()
                deferred.settle()
            if torn := sum(store.num_torn for store in written):
                say(f"[yellow]{torn} half-written last lines were removed: processes had died while they wrote them[/]")
    if deferred is not None and strategy.judges_source:
        target.release()
        control = replace(control, judge=judge)
    with closing(judge):
        rejected = judge_sources(examples, control, outcomes) if strategy.judges_source else {}
    match = match_rewrites(examples, rewriter, outcomes, chat) if strategy.pairs_by_length else None
    refined = RefinedSet(examples, rewriter, outcomes, cfg.refine, match)
    reasons = count_reasons([reason for id_ in ids if (reason := refined.reason(id_)) is not None])
    if ids and not len(refined):
        raise UserError(
            f"refine.on_failure=drop left none of {len(ids)} examples ({_counts(reasons)}). Write "
            "refine.on_failure=keep to train on the originals, give more refine.tries, or see whether refine.checks, "
            "refine.overthinking_tokens and refine.max_new_tokens ask too much of this model."
        )
    tokens_before, tokens_after = sum(target_tokens(examples, chat)), sum(target_tokens(refined, chat))
    tried = len(chosen), _num_failed(outcomes, cfg.refine)
    stats = RefinementStats(len(ids), refined.num_refined, reasons, tokens_before, tokens_after, *tried)
    if warning := fallback_warning(stats, cfg.refine.on_failure, paired=strategy.pairs_by_length):
        warn(warning)
    return Refinement(refined, stats, lambda: chain(rejected_rows(rejected), rewriter.verdict_rows()), match)


def _turn(target: ModelHandle, judge: Judge | None) -> Engine:
    """Returns the target's engine; a guard, which needs the same devices, gives way to it."""
    if judge is not None:
        judge.close()
    return target.engine()


def generation_header(
    cfg: Config, chat: Chat, step: Step, model_hash: str, strategy_identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns everything that a step's completion depends on besides its example and try; its hash is the generation hash.

    Other steps are left out, so that trace-only arms and edits to the answer's template reuse the traces that are stored.
    """
    return store_header(
        GENERATION_VERSION,
        model_hash,
        chat.identity,
        cfg.engine,
        template={step.template.name: step.template.text},
        view=cfg.refine.view,
        thinking=cfg.refine.thinking,
        **sampling_settings(cfg.refine),
        **strategy_identity,
    )


def _open_steps(
    stack: ExitStack, strategy: Strategy, cfg: Config, target: ModelHandle, control: QualityControl, rewrites: Path
) -> list[StoredStep]:
    """Returns the strategy's steps with their stores, which the stack closes."""
    opened = []
    for step in strategy.steps():
        header = generation_header(cfg, target.chat, step, target.model_hash, strategy.identity)
        folder = rewrites / content_hash(header)
        completions = stack.enter_context(CompletionStore(folder, header))
        judged = folder / f"verdicts-{content_hash(control.content)}"
        verdicts = stack.enter_context(ShardedRows(judged, control.content))
        opened.append(StoredStep(step, completions, verdicts, control, cfg.refine.thinking))
    return opened


def _choose(ids: Sequence[str], fraction: float) -> list[int]:
    """Returns the indices of the share that is rewritten, in source order.

    Examples are ranked by a hash of their ids, so a larger fraction includes a smaller one, whatever the seeds.
    """
    if fraction == 1:
        return list(range(len(ids)))
    ranked = sorted(range(len(ids)), key=lambda index: content_hash("refine.fraction", ids[index]))
    return sorted(ranked[: round(fraction * len(ids))])


def _num_failed(outcomes: Mapping[str, Outcome], refine: RefineConfig) -> int:
    """Returns how many examples had a rewrite rejected and keep none."""
    whole = refine.fallback_unit == "example"
    return sum(bool(outcome.tried and outcome.reasons and (whole or not outcome.accepted)) for outcome in outcomes.values())


def _counts(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in reasons.items())
