"""Runs a refinement strategy over a source set: a job an example, stored completions, quality control, fallback.

What the model generated is stored under a key that covers everything it depends on, and what quality control said of it under
everything that this depends on. So nothing that is stored is generated again, whatever interrupted the run or changed since;
the engine, and the model behind it, is not even built where nothing is missing. No text stays in memory: examples are read from
their file, rewrites from the store, when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.panel import Panel

from dgr_lightning.config import Config, read_by_strategy
from dgr_lightning.console import console, say
from dgr_lightning.engines.engine import Engine, Sampling
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.generation.completions import CompletionStore
from dgr_lightning.generation.headers import sampling_settings, store_header
from dgr_lightning.generation.jobs import Jobs, run_jobs
from dgr_lightning.generation.shards import ShardedRows
from dgr_lightning.hashes import content_hash
from dgr_lightning.models.chat import Chat
from dgr_lightning.refinement.length_matching import LengthMatch, match_lengths
from dgr_lightning.refinement.outcome import Outcome, RefinementStats, count_reasons
from dgr_lightning.refinement.quality import QualityControl
from dgr_lightning.refinement.refined_set import RefinedSet, target_tokens
from dgr_lightning.refinement.rewriter import Rewriter
from dgr_lightning.refinement.strategies import Step, steps
from dgr_lightning.scoring.judge import Judge

GENERATION_VERSION = 2
"""Part of the generation hash: one more whenever this code would send or sample something else for the same config."""

# Fewer pairs of one length than that are no set to train on.
_FEWEST_PAIRS = 8


@dataclass(frozen=True)
class Refinement:
    """What the stage hands on.

    Attributes:
        examples: the refined set, in source order, read from the disk as it is gone through; without those that
            `refine.on_failure=drop` took out. `refined.jsonl` holds these lines.
        stats: the figures of the stage.
        verdicts: yields the lines of `verdicts.jsonl`: `id part attempt checks num_tokens nll text`, one for every completion
            that was judged; `text` only where it failed a check.
        match: the two arms of a length-matched comparison; None for every other strategy.
    """

    examples: RefinedSet
    stats: RefinementStats
    verdicts: Callable[[], Iterator[dict[str, Any]]]
    match: LengthMatch | None


def refine(
    examples: Sequence[Example],
    cfg: Config,
    chat: Chat,
    engine: Callable[[], Engine],
    model_hash: str,
    judge: Judge,
    cache_dir: Path,
) -> Refinement:
    """Refines a source set with the target model.

    Args:
        examples: the source set, in source order.
        cfg: the run; `refine` says how, `engine.name` and `engine.precision` (values, not `auto`) are part of what is stored.
        chat: the target's chat format.
        engine: gives the engine; called only where a completion is missing from the store.
        model_hash: hash of the target's content.
        judge: decides whether an answer refuses.
        cache_dir: rewrites are stored in `rewrites/<generation hash>/` under it, with the verdicts on them.

    Returns:
        The refined set in source order, its figures, and every verdict.

    Raises:
        UserError: a template or the phrase list cannot be used, or nothing is left with `refine.on_failure=drop`.
    """
    cfg = replace(cfg, refine=read_by_strategy(cfg.refine))
    ids = [example.id for example in examples]
    outcomes = {id_: Outcome() for id_ in ids}
    asked = steps(cfg.refine)
    chosen = _choose(ids, cfg.refine.fraction) if asked else []
    control = QualityControl.of(cfg.refine, chat, judge)
    with ExitStack() as stack:
        stores: dict[str, CompletionStore] = {}
        verdicts: dict[str, ShardedRows] = {}
        for step in asked:
            header = generation_header(cfg, chat, step, model_hash)
            folder = cache_dir / "rewrites" / content_hash(header)
            stores[step.part] = stack.enter_context(CompletionStore(folder, header))
            judged = folder / f"verdicts-{content_hash(control.content)}"
            verdicts[step.part] = stack.enter_context(ShardedRows(judged, control.content))
        sampling = Sampling(cfg.refine.temperature, cfg.refine.top_p, cfg.refine.max_new_tokens, cfg.refine.seed, chat.stop_ids)
        rewriter = Rewriter(examples, cfg.refine, chat, control, asked, stores, verdicts, outcomes)
        if chosen:
            names = [ids[index] for index in chosen]
            jobs = Jobs(names, lambda i: rewriter.job(chosen[i]), list(stores.values()), list(verdicts.values()))
            run_jobs(jobs, engine, sampling, "rewriting")
            if torn := sum(store.num_torn for store in stores.values()):
                say(f"[yellow]{torn} torn lines were cut off, each the mark of a process that died while writing[/]")
        elif cfg.refine.strategy == "filters-only":
            rewriter.judge_sources()
    match = _match(examples, rewriter, outcomes, chat) if cfg.refine.strategy == "length-matched" else None
    refined = RefinedSet(examples, rewriter, outcomes, cfg.refine, match)
    reasons = [reason for id_ in ids if (reason := refined.reason(id_)) is not None]
    if ids and not len(refined):
        raise UserError(
            f"refine.on_failure=drop left none of {len(ids)} examples ({_counts(reasons)}). Write "
            "refine.on_failure=keep to train on the originals, give more refine.tries, or see whether refine.checks, "
            "refine.overthinking_tokens and refine.max_new_tokens ask too much of this model."
        )
    stats = RefinementStats(
        examples=len(ids),
        refined=refined.num_refined,
        fallback=count_reasons(reasons),
        tokens_before=sum(target_tokens(examples, chat)),
        tokens_after=sum(target_tokens(refined, chat)),
    )
    if chosen and not any(outcome.accepted for outcome in outcomes.values()):
        _warn_nothing_refined(reasons, len(chosen))
    return Refinement(refined, stats, rewriter.verdict_rows, match)


def generation_header(cfg: Config, chat: Chat, step: Step, model_hash: str) -> dict[str, Any]:
    """Returns all that a completion of a step depends on besides its example and try; its hash is the generation hash.

    Other steps have no say in it: trace-only arms and edits to the answer's template find the traces that are there.
    """
    return store_header(
        GENERATION_VERSION,
        model_hash,
        chat.style,
        cfg.engine,
        template={step.template.name: step.template.text},
        view=cfg.refine.view,
        thinking=cfg.refine.thinking,
        **sampling_settings(cfg.refine),
    )


def _choose(ids: Sequence[str], fraction: float) -> list[int]:
    """Returns the indices of the share that is rewritten, in source order.

    The order in which examples are taken follows from their ids alone, so a larger fraction takes what a smaller one took and
    more, whatever the seeds.
    """
    if fraction == 1:
        return list(range(len(ids)))
    ranked = sorted(range(len(ids)), key=lambda index: content_hash("refine.fraction", ids[index]))
    return sorted(ranked[: round(fraction * len(ids))])


def _match(examples: Sequence[Example], rewriter: Rewriter, outcomes: dict[str, Outcome], chat: Chat) -> LengthMatch:
    """Returns the length-matched halves of the examples whose rewrite was accepted."""
    indices = [index for index, outcome in enumerate(outcomes.values()) if outcome.accepted and outcome.reason is None]
    originals, rewrites, labels = {}, {}, {}
    for index in indices:
        example = examples[index]
        labels[example.id] = example.label
        originals[example.id] = len(chat.target_ids(example.trace, example.answer))
        texts = rewriter.texts(index)
        rewrites[example.id] = len(chat.target_ids(texts["trace"], texts["answer"]))
    match = match_lengths(originals, rewrites, labels)
    if len(match.originals) < _FEWEST_PAIRS:
        raise UserError(
            f"refine=length-matched: only {len(match.originals)} of {len(indices)} originals have a rewrite of their length "
            "beside them; originals and rewrites of this set are too unlike in length to be compared so."
        )
    say(
        f"length-matched: {len(match.originals)} pairs of {len(indices)} rewritten examples, mean target tokens "
        f"{match.mean_originals:.1f} (originals) and {match.mean_rewrites:.1f} (rewrites), "
        f"largest difference of the distributions {match.distance:.3f}"
    )
    return match


def _counts(reasons: Sequence[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in count_reasons(reasons).items())


def _warn_nothing_refined(reasons: Sequence[str], num_chosen: int) -> None:
    console.print(
        Panel(
            f"None of {num_chosen} examples could be rewritten ({_counts(reasons)}), so nothing in the set is the model's own "
            "text: this run is vanilla in fact. The templates are what the model was asked, refine.checks how its text was "
            "judged.",
            title="Every rewrite fell back",
            style="bold red",
        ),
        soft_wrap=False,  # a panel is cut, not wrapped, where the console wraps softly
    )
