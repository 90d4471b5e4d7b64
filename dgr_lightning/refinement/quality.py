"""Quality control of rewrites: a registry of named checks, each a fault that a rewrite may have.

Overthinking and meta-thinking are DGR's (arXiv 2602.02136); its phrase list is not published, ours is `meta_thinking.txt`. The
other checks are ours. Judging needs no model: a changed limit or list judges anew what was generated before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dgr_lightning.chat import Chat
from dgr_lightning.config import RefineConfig
from dgr_lightning.engines import STOP
from dgr_lightning.errors import UserError
from dgr_lightning.judge import KeywordJudge
from dgr_lightning.records import Example
from dgr_lightning.refinement.templates import ANSWER, load_templates
from dgr_lightning.text_files import read_lines

SHIPPED_PHRASES = Path(__file__).parent / "meta_thinking.txt"


@dataclass(frozen=True)
class Candidate:
    """One rewrite, before anyone has judged it.

    Attributes:
        example: the source example.
        part: `trace` or `answer`.
        text: what would be kept, stripped; empty where nothing follows the thinking, or the thinking was never closed.
        thought: what the model thought before it; empty where it was not let think.
        finish_reason: `stop` or `length`.
    """

    example: Example
    part: str
    text: str
    thought: str
    finish_reason: str

    @property
    def original(self) -> str:
        """The text that it rewrites."""
        return self.example.answer if self.part == ANSWER else self.example.trace


@dataclass(frozen=True)
class QualityControl:
    """What the checks need, and which of them are asked, in which order.

    Attributes:
        chat: the target's chat format; its tokenizer counts tokens, its marks are the think marks.
        judge: says whether an answer refuses.
        phrases: meta-thinking phrases.
        overthinking_tokens: the longest text that has not overthought, in tokens.
        checks: names of the checks that are on.
    """

    chat: Chat
    judge: KeywordJudge
    phrases: tuple[str, ...]
    overthinking_tokens: int
    checks: tuple[str, ...]

    @classmethod
    def of(cls, refine: RefineConfig, chat: Chat, judge: KeywordJudge) -> QualityControl:
        """Returns the quality control that a config asks for."""
        return cls(chat, judge, load_phrases(refine.meta_thinking), refine.overthinking_tokens, tuple(refine.checks))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Finds any of the phrases as whole words, with any white space between them."""
        spaced = (r"\s+".join(re.escape(word) for word in phrase.split()) for phrase in self.phrases)
        return re.compile(rf"(?<!\w)(?:{'|'.join(spaced)})(?!\w)")

    def meta_phrases(self, text: str) -> set[str]:
        """Returns the meta-thinking phrases in a text, in lower case with single spaces."""
        return {" ".join(found.split()) for found in self.pattern.findall(_plain(text))}

    def num_tokens(self, text: str) -> int:
        """Returns how many tokens a bare text is in the target's tokenizer."""
        return len(self.chat.tokenizer.encode(text, add_special_tokens=False))

    def faults(self, candidate: Candidate) -> tuple[str, ...]:
        """Returns the names of the checks that a rewrite fails, in the order of `checks`; empty for one to keep.

        A rewrite without any text is `empty` even where that check is off: there is nothing that could be kept.
        """
        faults = tuple(name for name in self.checks if CHECKS[name](candidate, self))
        return faults if faults or candidate.text else ("empty",)


def unfinished(candidate: Candidate, control: QualityControl) -> bool:
    """The generation ran into the token limit instead of ending by itself."""
    return candidate.finish_reason != STOP


def empty(candidate: Candidate, control: QualityControl) -> bool:
    """There is no text: nothing follows the close of thinking, or the thinking was never closed."""
    return not candidate.text


def think_marks(candidate: Candidate, control: QualityControl) -> bool:
    """Think marks inside the text, or a second opening inside the thought: not exactly one trace."""
    return control.chat.has_marks(candidate.text) or control.chat.has_marks(candidate.thought)


def overthinking(candidate: Candidate, control: QualityControl) -> bool:
    """The text that would be kept is longer than the limit, by the target's tokenizer (DGR: 5,000 tokens)."""
    return control.num_tokens(candidate.text) > control.overthinking_tokens


def meta_thinking(candidate: Candidate, control: QualityControl) -> bool:
    """The text talks about the instruction to rewrite, in a phrase that neither the question nor the original uses."""
    found = control.meta_phrases(candidate.text)
    return bool(found and found - control.meta_phrases(f"{candidate.example.prompt}\n{candidate.original}"))


def refusal_lost(candidate: Candidate, control: QualityControl) -> bool:
    """The source answer refuses, by the judge, and the rewritten one does not."""
    refuses = control.judge.refuses
    return candidate.part == ANSWER and refuses(candidate.example.answer) and not refuses(candidate.text)


CHECKS: dict[str, Callable[[Candidate, QualityControl], bool]] = {
    check.__name__: check for check in (unfinished, empty, think_marks, overthinking, meta_thinking, refusal_lost)
}


def load_phrases(path: str | None) -> tuple[str, ...]:
    """Reads a meta-thinking list: a phrase a line; blank lines and lines that open with # are comments.

    Args:
        path: a user's file; None takes the shipped one.

    Raises:
        UserError: the file is missing, is not UTF-8 text, or holds no phrase.
    """
    file = Path(path) if path is not None else SHIPPED_PHRASES
    place = f"refine.meta_thinking={file}"
    phrases = tuple(_plain(line) for line in read_lines(place, file))
    if not phrases:
        raise UserError(f"{place}: holds no phrase; write one a line, or take meta_thinking out of refine.checks.")
    return phrases


def check_quality_config(refine: RefineConfig) -> None:
    """Checks at the door all of `refine` that the schema cannot: check names, phrase list, templates, impossible pairs.

    Raises:
        UserError: naming the override and what may stand there.
    """
    known = ", ".join(CHECKS)
    if unknown := [name for name in refine.checks if name not in CHECKS]:
        raise UserError(f"refine.checks: there is no check {', '.join(map(repr, unknown))}; there are {known}.")
    if repeated := _repeated(refine.checks):
        raise UserError(f"refine.checks: names {', '.join(repeated)} more than once.")
    if refine.fallback_unit == "part" and refine.on_failure == "drop":
        raise UserError(
            "refine.fallback_unit=part keeps the original of a part that failed, refine.on_failure=drop keeps no example "
            "with a failed part: write refine.fallback_unit=example, or refine.on_failure=keep."
        )
    load_phrases(refine.meta_thinking)
    load_templates(refine)


def _plain(text: str) -> str:
    return text.replace("’", "'").casefold()


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
