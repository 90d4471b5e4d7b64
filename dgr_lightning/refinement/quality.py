"""Quality control of what the model wrote: a registry of named checks, each for one fault that a text may have.

Overthinking and meta-thinking are DGR's (arXiv 2602.02136; patterns in `meta_thinking.py`), the guard is ThinkSafe's (arXiv
2601.23143), the other checks are ours. After a change of a limit or a list, stored completions are judged again; only what the
new verdicts make necessary (an answer for a newly accepted trace, another try) is generated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dgr_lightning.config import RefineConfig
from dgr_lightning.engines.engine import STOP
from dgr_lightning.errors import UserError
from dgr_lightning.example import HARMFUL, Example
from dgr_lightning.prompts.templates import ANSWER
from dgr_lightning.refinement.deferred_judge import DeferredJudge
from dgr_lightning.refinement.meta_thinking import MetaThinking, check_patterns
from dgr_lightning.scoring.cached_judge import CachedJudge
from dgr_lightning.scoring.judge import HARMFUL as HARM
from dgr_lightning.scoring.judge import Exchange, Judge, refuses

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Chat

QUALITY_VERSION = 2
"""Part of what verdicts are stored under. Raise it when a check changes its verdict for the same config."""


@dataclass(frozen=True)
class Candidate:
    """Texts that may replace an example's, not judged yet.

    Attributes:
        example: the source example.
        texts: part (`trace`, `answer`) → the text to keep, stripped; empty where the completion lacks it.
        num_tokens: part → tokens of that text, by the target's tokenizer.
        thought: the thinking that is not kept; empty where thinking was off, or is kept as the trace.
        reference: the source text that the prompt showed.
        finish_reason: `stop` or `length`.
    """

    example: Example
    texts: Mapping[str, str]
    num_tokens: Mapping[str, int]
    thought: str
    reference: str
    finish_reason: str


@dataclass(frozen=True)
class Judgement:
    """Quality control's verdict on a candidate.

    Attributes:
        checks: name of every check that ran → whether the candidate fails it, in the order of `refine.checks`.
        num_tokens: tokens of its texts, by the target's tokenizer.
    """

    checks: dict[str, bool]
    num_tokens: int

    @property
    def reason(self) -> str | None:
        """The first check that failed; None for a candidate that passed them all."""
        return next((name for name, failed in self.checks.items() if failed), None)


@dataclass(frozen=True)
class QualityControl:
    """The checks that run, in order, and what they need.

    Attributes:
        chat: the target's chat format, with its tokenizer and its think marks.
        judge: says whether an answer refuses.
        meta: meta-thinking patterns.
        overthinking_tokens: the longest text that passes the overthinking check, in tokens.
        checks: names of the checks.
    """

    chat: Chat
    judge: Judge
    meta: MetaThinking
    overthinking_tokens: int
    checks: tuple[str, ...]

    @classmethod
    def of(cls, refine: RefineConfig, chat: Chat, judge: Judge) -> QualityControl:
        """Returns the quality control of a config."""
        return cls(chat, judge, MetaThinking.load(refine.meta_thinking), refine.overthinking_tokens, tuple(refine.checks))

    def candidate(
        self,
        example: Example,
        texts: Mapping[str, str | None],
        *,
        thought: str = "",
        reference: str = "",
        finish_reason: str = STOP,
    ) -> Candidate:
        """Returns texts ready to be judged; None stands for a text that the completion lacks."""
        found = {part: (text or "").strip() for part, text in texts.items()}
        counts = {part: len(self.chat.tokenizer.encode(text, add_special_tokens=False)) for part, text in found.items()}
        return Candidate(example, found, counts, thought, reference, finish_reason)

    def judge_candidate(self, candidate: Candidate) -> Judgement:
        """Runs every check.

        A candidate that lacks a text fails `empty` even where that check is off, since it leaves nothing to keep.

        Raises:
            Pending: a guard's verdict is not there yet.
        """
        checks: dict[str, bool] = {}
        for name in self.checks:
            # A model is not asked about what is rejected anyway.
            if not (name in JUDGED and any(checks.values()) and isinstance(self.judge, CachedJudge | DeferredJudge)):
                checks[name] = CHECKS[name](candidate, self)
        if not any(checks.values()) and empty(candidate, self):
            checks["empty"] = True
        return Judgement(checks, sum(candidate.num_tokens.values()))

    @property
    def content(self) -> dict[str, Any]:
        """Everything that a verdict depends on besides the completion and its example."""
        return {
            "version": QUALITY_VERSION,
            "checks": list(self.checks),
            "meta_thinking": list(self.meta.entries),
            "overthinking_tokens": self.overthinking_tokens,
            "judge": self.judge.content,
        }


def unfinished(candidate: Candidate, control: QualityControl) -> bool:
    """The completion was cut off at the token limit."""
    return candidate.finish_reason != STOP


def empty(candidate: Candidate, control: QualityControl) -> bool:
    """A text is missing: the thinking is empty, nothing follows its close, or a thought was opened and never closed."""
    return not all(candidate.texts.values())


def think_marks(candidate: Candidate, control: QualityControl) -> bool:
    """A text or the thought contains think marks, so that the completion does not hold exactly one trace."""
    return any(map(control.chat.has_marks, (*candidate.texts.values(), candidate.thought)))


def overthinking(candidate: Candidate, control: QualityControl) -> bool:
    """A text to keep is longer than the limit, by the target's tokenizer (DGR: 5,000 tokens)."""
    return any(num_tokens > control.overthinking_tokens for num_tokens in candidate.num_tokens.values())


def meta_thinking(candidate: Candidate, control: QualityControl) -> bool:
    """A text talks about the instruction or about the source, and neither the question nor the source speaks so."""
    known = f"{candidate.example.prompt}\n{candidate.reference}"
    return bool(control.meta.found_beyond("\n".join(candidate.texts.values()), known))


def refusal_lost(candidate: Candidate, control: QualityControl) -> bool:
    """The judge finds a refusal in the source answer and none in the new one."""
    judge, prompt = control.judge, candidate.example.prompt
    return (
        ANSWER in candidate.texts
        and refuses(judge, prompt, candidate.example.answer)
        and not refuses(judge, prompt, candidate.texts[ANSWER])
    )


def refusal_gained(candidate: Candidate, control: QualityControl) -> bool:
    """The prompt is not a harmful one, and the judge finds a refusal in the new answer and none in the source's."""
    judge, example = control.judge, candidate.example
    return (
        ANSWER in candidate.texts
        and example.label != HARMFUL
        and refuses(judge, example.prompt, candidate.texts[ANSWER])
        and not refuses(judge, example.prompt, example.answer)
    )


def guard(candidate: Candidate, control: QualityControl) -> bool:
    """The guard rejects the response (ThinkSafe's filter), or could not tell.

    A judge that says harm is shown the plain prompt and the whole response: harmful ones are rejected (P(safe) has to be larger
    than P(unsafe)), and so are refusals of a prompt that is not harmful, where the judge says what refuses. One that says
    refusals alone is shown the answer: it has to refuse a harmful prompt, and no other.
    """
    if ANSWER not in candidate.texts:
        return False
    judge, example = control.judge, candidate.example
    if HARM not in judge.says:
        return refuses(judge, example.prompt, candidate.texts[ANSWER]) != (example.label == HARMFUL)
    whole = "\n\n".join(text for text in candidate.texts.values() if text)
    verdict = judge.verdicts([Exchange(example.prompt, whole)])[0]
    return verdict.harmful is not False or (example.label != HARMFUL and verdict.refused is True)


CHECKS: dict[str, Callable[[Candidate, QualityControl], bool]] = {
    check.__name__: check
    for check in (unfinished, empty, think_marks, overthinking, meta_thinking, refusal_lost, refusal_gained, guard)
}

JUDGED = frozenset(check.__name__ for check in (refusal_lost, refusal_gained, guard))
"""The checks that ask the judge."""


def check_quality(refine: RefineConfig) -> None:
    """Checks the names of `refine.checks` and the list of meta-thinking patterns.

    Raises:
        UserError: naming the override and what may stand there.
    """
    if unknown := [name for name in refine.checks if name not in CHECKS]:
        raise UserError(
            f"refine.checks: no check is called {', '.join(map(repr, unknown))}; write some of {', '.join(CHECKS)}."
        )
    if twice := repeated(refine.checks):
        raise UserError(f"refine.checks: names {', '.join(twice)} more than once; write it once.")
    check_patterns(refine.meta_thinking)


def repeated(names: Sequence[str]) -> list[str]:
    """Returns the names that a list holds more than once."""
    return sorted({name for name in names if names.count(name) > 1})
