"""Runs a refinement strategy over a source set: waves of requests, stored completions, quality control, fallback.

What the model generated is stored under a key that covers everything it depends on, and judged anew in every run. So a run
that was interrupted, or that changes only what is accepted, generates nothing twice; the engine, and the model behind it, is
not even built where everything is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from rich.panel import Panel

from dgr_lightning.chat import Chat
from dgr_lightning.config import Config, RefineConfig
from dgr_lightning.console import console, progress
from dgr_lightning.engines import Completion, Engine, Request, Sampling
from dgr_lightning.errors import UserError
from dgr_lightning.judge import KeywordJudge
from dgr_lightning.records import Example, RefinedExample, content_hash
from dgr_lightning.refinement.outcome import Refinement, RefinementStats, Verdict, count_reasons
from dgr_lightning.refinement.quality import Candidate, QualityControl
from dgr_lightning.refinement.strategies import STRATEGIES, Wave
from dgr_lightning.refinement.templates import ANSWER, TRACE
from dgr_lightning.store import CompletionStore, StoredCompletion, generate_stored

GENERATION_VERSION = 1
"""Part of the generation hash: one more whenever this code would send or sample something else for the same config."""

# So many examples take seconds to tokenize: they get a progress bar.
_MANY = 1000

_Item = TypeVar("_Item")


def refine(
    examples: Sequence[Example],
    cfg: Config,
    chat: Chat,
    engine: Callable[[], Engine],
    model_hash: str,
    judge: KeywordJudge,
    cache_dir: Path,
) -> Refinement:
    """Refines a source set with the target model.

    Args:
        examples: the source set, in source order.
        cfg: the run; `refine` says how, `engine.name` and `engine.precision` (values, not `auto`) are part of what is stored.
        chat: the target's chat format.
        engine: builds the engine; called at most once, and only where a completion is missing from the store.
        model_hash: hash of the target's content.
        judge: says whether an answer refuses.
        cache_dir: rewrites are stored in `rewrites/<generation hash>/` under it.

    Returns:
        The refined set in source order, its figures, and every verdict.

    Raises:
        UserError: a template or the phrase list cannot be used, or nothing is left with `refine.on_failure=drop`.
    """
    drafts = [_Draft(example) for example in examples]
    waves = STRATEGIES[cfg.refine.strategy](cfg.refine)
    chosen = _choose(drafts, cfg.refine.fraction) if waves else []
    verdicts: list[Verdict] = []
    if chosen:
        header = generation_header(cfg, chat, waves, model_hash)
        with CompletionStore(cache_dir / "rewrites" / content_hash(header), header) as store:
            rewriter = _Rewriter(cfg.refine, chat, QualityControl.of(cfg.refine, chat, judge), cache(engine), store)
            for wave in waves:
                verdicts += rewriter.rewrite(wave, chosen)
    refined = [draft.refined(cfg.refine.fallback_unit) for draft in drafts]
    reasons = [example.reason for example in refined if example.reason is not None]
    if cfg.refine.on_failure == "drop":
        refined = [example for example in refined if example.reason is None]
    if examples and not refined:
        raise UserError(
            f"refine.on_failure=drop left none of {len(examples)} examples ({_counts(reasons)}). Write "
            "refine.on_failure=keep to train on the originals, give more refine.tries, or see whether refine.checks, "
            "refine.overthinking_tokens and refine.max_new_tokens ask too much of this model."
        )
    stats = RefinementStats(
        examples=len(examples),
        refined=sum(example.refined for example in refined),
        fallback=count_reasons(reasons),
        tokens_before=num_target_tokens(examples, chat),
        tokens_after=num_target_tokens(refined, chat),
    )
    if chosen and not stats.refined:
        _warn_nothing_refined(reasons, len(chosen))
    return Refinement(refined, stats, verdicts)


def generation_header(cfg: Config, chat: Chat, waves: Sequence[Wave], model_hash: str) -> dict[str, Any]:
    """Returns all that a completion depends on besides its own example, part and try; its hash is the generation hash."""
    assert "auto" not in (cfg.engine.name, cfg.engine.precision), "the door resolves engine.name and engine.precision"
    return {
        "version": GENERATION_VERSION,
        "model": model_hash,
        "chat_style": chat.style,
        "templates": {wave.part: wave.template.text for wave in waves},
        "view": cfg.refine.view,
        "thinking": cfg.refine.thinking,
        "temperature": cfg.refine.temperature,
        "top_p": cfg.refine.top_p,
        "max_new_tokens": cfg.refine.max_new_tokens,
        "seed": cfg.refine.seed,
        "engine": cfg.engine.name,
        "precision": cfg.engine.precision,
    }


def generation_key(example: Example, part: str, attempt: int, prompt_ids: Sequence[int]) -> str:
    """Returns what a completion is stored under within its generation hash: `<id>/<part>/<try>/<content>`.

    The content is the example's and that of the prompt as it was sent. So an answer that was made for one trace is never met
    by another: a changed check that accepts another trace asks for another answer.
    """
    content = content_hash(example.prompt, example.trace, example.answer, list(prompt_ids))
    return f"{example.id}/{part}/{attempt}/{content}"


def num_target_tokens(examples: Sequence[Example], chat: Chat) -> int:
    """Returns the target tokens of a set, marks and end tokens included: what the loss and the NLL are taken over."""
    return sum(len(chat.target_ids(example.trace, example.answer)) for example in _watched(examples, "counting tokens"))


@dataclass
class _Draft:
    """An example on its way: its texts as accepted so far, and why a part of it fell back."""

    example: Example
    texts: dict[str, str] = field(init=False)
    reasons: dict[str, str] = field(default_factory=dict)
    rewritten: bool = False

    def __post_init__(self) -> None:
        self.texts = {TRACE: self.example.trace, ANSWER: self.example.answer}

    def refined(self, fallback_unit: str) -> RefinedExample:
        """Returns the example that is trained on; the reason is that of the first part that fell back."""
        reason = next(iter(self.reasons.values()), None)
        if reason is not None and fallback_unit == "example":
            return RefinedExample.of(self.example, refined=False, reason=reason)
        return RefinedExample.of(self.example, refined=self.rewritten, reason=reason, **self.texts)


_Waiting = tuple[_Draft, list[int]]
"""A draft with the prompt ids that ask for its next part."""


@dataclass(frozen=True)
class _NoiseByName:
    """An engine whose sampling noise follows from `<id>/<part>/<try>`: the stored key without what it says of content.

    So two templates, or two versions of an example, are sampled with the same random numbers.
    """

    engine: Engine

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yields the completions of `requests` under the keys that they came with."""
        stored_keys = {request.key.rpartition("/")[0]: request.key for request in requests}
        named = [Request(name, request.prompt_ids) for name, request in zip(stored_keys, requests, strict=True)]
        for completion in self.engine.generate(named, sampling):
            yield replace(completion, key=stored_keys[completion.key])

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Scores as the engine does."""
        return self.engine.score(pairs)


@dataclass(frozen=True)
class _Rewriter:
    """What every wave needs."""

    refine: RefineConfig
    chat: Chat
    control: QualityControl
    engine: Callable[[], Engine]
    store: CompletionStore

    def rewrite(self, wave: Wave, drafts: Sequence[_Draft]) -> list[Verdict]:
        """Rewrites one part of the drafts, try by try until it is accepted; returns the verdicts in order."""
        verdicts: list[Verdict] = []
        waiting: list[_Waiting] = []
        for draft in _watched(drafts, f"asking for {wave.part}s"):
            # A whole example falls back with its trace, so its answer need not be generated.
            beyond_help = draft.reasons and self.refine.fallback_unit == "example"
            prompt = None if beyond_help else wave.prompt(draft.example, draft.texts)
            if prompt is not None:
                waiting.append((draft, self.chat.prompt_ids(prompt, self.refine.thinking)))
        for attempt in range(self.refine.tries):
            if not waiting:
                break
            completions = self._complete(wave, waiting, attempt)
            failed: list[_Waiting] = []
            pairs = list(zip(waiting, completions, strict=True))
            for (draft, prompt_ids), completion in _watched(pairs, f"judging {wave.part}s"):
                candidate = self._candidate(wave, draft.example, completion)
                faults = self.control.faults(candidate)
                verdicts.append(Verdict(draft.example.id, wave.part, attempt, faults, candidate.text))
                if faults:
                    draft.reasons[wave.part] = faults[0]
                    failed.append((draft, prompt_ids))
                else:
                    draft.reasons.pop(wave.part, None)
                    draft.texts[wave.part] = candidate.text
                    draft.rewritten = True
            waiting = failed
        return verdicts

    def _complete(self, wave: Wave, waiting: Sequence[_Waiting], attempt: int) -> list[StoredCompletion]:
        """Returns a completion for each of `waiting`, from the store or from the engine."""
        refine = self.refine
        sampling = Sampling(refine.temperature, refine.top_p, refine.max_new_tokens, refine.seed, self.chat.stop_ids)
        requests = [
            Request(generation_key(draft.example, wave.part, attempt, prompt_ids), prompt_ids) for draft, prompt_ids in waiting
        ]
        label = f"rewriting {wave.part}s" + (f", try {attempt + 1}" if attempt else "")
        stored = generate_stored(lambda: _NoiseByName(self.engine()), self.chat, requests, sampling, self.store, label)
        return [stored[request.key] for request in requests]

    def _candidate(self, wave: Wave, example: Example, completion: StoredCompletion) -> Candidate:
        parsed = self.chat.parse(completion.text, self.refine.thinking)
        return Candidate(
            example,
            wave.part,
            text=(parsed.answer or "").strip(),
            thought=parsed.trace or "",
            finish_reason=completion.finish_reason,
        )


def _watched(items: Sequence[_Item], label: str) -> Iterator[_Item]:
    """Yields the items, behind a progress bar where there are enough for their tokens to take seconds."""
    if len(items) < _MANY:
        yield from items
        return
    with progress(label, total=len(items)) as advance:
        for item in items:
            yield item
            advance(1)


def _choose(drafts: Sequence[_Draft], fraction: float) -> list[_Draft]:
    """Returns the share of the drafts that is rewritten, in source order.

    The order in which examples are taken follows from their ids alone, so a larger fraction takes what a smaller one took and
    more, whatever the seeds.
    """
    ranked = sorted(range(len(drafts)), key=lambda index: content_hash("refine.fraction", drafts[index].example.id))
    return [drafts[index] for index in sorted(ranked[: round(fraction * len(drafts))])]


def _counts(reasons: Sequence[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in count_reasons(reasons).items())


def _warn_nothing_refined(reasons: Sequence[str], num_chosen: int) -> None:
    console.print(
        Panel(
            f"None of {num_chosen} examples could be rewritten ({_counts(reasons)}), so nothing in the set is the model's own "
            "text: this run is vanilla in fact. refine.trace_template and refine.answer_template are what the model was asked, "
            "refine.checks how its text was judged.",
            title="Every rewrite fell back",
            style="bold red",
        ),
        soft_wrap=False,  # a panel is cut, not wrapped, where the console wraps softly
    )
