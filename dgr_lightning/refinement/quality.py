"""Quality control of what the model wrote: a registry of named checks, each for one fault that a text may have.

Overthinking and meta-thinking are DGR's (arXiv 2602.02136); its phrase list is not published, ours is `meta_thinking.txt`. The
guard is ThinkSafe's (arXiv 2601.23143). The other checks are ours. After a change of a limit or a list, stored completions are
judged again; only what the new verdicts make necessary (an answer for a newly accepted trace, another try) is generated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgr_lightning.config import RefineConfig
from dgr_lightning.engines.engine import STOP
from dgr_lightning.errors import UserError
from dgr_lightning.example import HARMFUL, Example
from dgr_lightning.prompts.templates import ANSWER, SHIPPED
from dgr_lightning.scoring.judge import Judge, refuses
from dgr_lightning.text_files import read_lines

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Chat

SHIPPED_PHRASES = SHIPPED / "meta_thinking.txt"

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
        phrases: meta-thinking phrases.
        overthinking_tokens: the longest text that passes the overthinking check, in tokens.
        checks: names of the checks.
    """

    chat: Chat
    judge: Judge
    phrases: tuple[str, ...]
    overthinking_tokens: int
    checks: tuple[str, ...]

    @classmethod
    def of(cls, refine: RefineConfig, chat: Chat, judge: Judge) -> QualityControl:
        """Returns the quality control of a config."""
        return cls(chat, judge, load_phrases(refine.meta_thinking), refine.overthinking_tokens, tuple(refine.checks))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches any of the phrases, as whole words with any white space between them."""
        spaced = (r"\s+".join(re.escape(word) for word in phrase.split()) for phrase in self.phrases)
        return re.compile(rf"(?<!\w)(?:{'|'.join(spaced)})(?!\w)")

    def meta_phrases(self, text: str) -> set[str]:
        """Returns the meta-thinking phrases in a text, in lower case with single spaces."""
        return {" ".join(found.split()) for found in self.pattern.findall(_casefolded(text))}

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
        """
        checks = {name: CHECKS[name](candidate, self) for name in self.checks}
        if not any(checks.values()) and empty(candidate, self):
            checks["empty"] = True
        return Judgement(checks, sum(candidate.num_tokens.values()))

    @property
    def content(self) -> dict[str, Any]:
        """Everything that a verdict depends on besides the completion and its example."""
        return {
            "version": QUALITY_VERSION,
            "checks": list(self.checks),
            "phrases": list(self.phrases),
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
    """A text talks about the instruction, in a phrase that occurs neither in the question nor in the source."""
    found = control.meta_phrases("\n".join(candidate.texts.values()))
    return bool(found and found - control.meta_phrases(f"{candidate.example.prompt}\n{candidate.reference}"))


def refusal_lost(candidate: Candidate, control: QualityControl) -> bool:
    """The judge finds a refusal in the source answer and none in the new one."""
    judge, prompt = control.judge, candidate.example.prompt
    return (
        ANSWER in candidate.texts
        and refuses(judge, prompt, candidate.example.answer)
        and not refuses(judge, prompt, candidate.texts[ANSWER])
    )


def guard(candidate: Candidate, control: QualityControl) -> bool:
    """The guard rejects the answer: it does not refuse a harmful prompt, or refuses a benign one (ThinkSafe's filter)."""
    if ANSWER not in candidate.texts:
        return False
    harmful = candidate.example.label == HARMFUL
    return refuses(control.judge, candidate.example.prompt, candidate.texts[ANSWER]) != harmful


CHECKS: dict[str, Callable[[Candidate, QualityControl], bool]] = {
    check.__name__: check for check in (unfinished, empty, think_marks, overthinking, meta_thinking, refusal_lost, guard)
}


def load_phrases(path: str | None) -> tuple[str, ...]:
    """Reads a list of meta-thinking phrases, one a line; blank lines and lines that begin with # are skipped.

    Args:
        path: a user's file; None reads the shipped one.

    Raises:
        UserError: the file is missing, is not UTF-8 text, or holds no phrase.
    """
    file = Path(path).expanduser() if path is not None else SHIPPED_PHRASES
    place = f"refine.meta_thinking={file}"
    phrases = tuple(_casefolded(line) for line in read_lines(place, file))
    if not phrases:
        raise UserError(f"{place}: holds no phrase; write one a line, or null for the shipped list.")
    return phrases


def check_quality(refine: RefineConfig) -> None:
    """Checks the names of `refine.checks` and the phrase list.

    Raises:
        UserError: naming the override and what may stand there.
    """
    if unknown := [name for name in refine.checks if name not in CHECKS]:
        raise UserError(
            f"refine.checks: no check is called {', '.join(map(repr, unknown))}; write some of {', '.join(CHECKS)}."
        )
    if twice := repeated(refine.checks):
        raise UserError(f"refine.checks: names {', '.join(twice)} more than once; write it once.")
    load_phrases(refine.meta_thinking)


def repeated(names: Sequence[str]) -> list[str]:
    """Returns the names that a list holds more than once."""
    return sorted({name for name in names if names.count(name) > 1})


def _casefolded(text: str) -> str:
    return text.replace("’", "'").casefold()
