"""Prompt and target ids to be scored: what the log-probability of a trace, or of an answer, is taken over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Chat

Pair = tuple[Sequence[int], Sequence[int]]
"""Prompt ids and target ids to be scored."""


def trace_pair(chat: Chat, prompt: str, trace: str) -> Pair:
    """Returns what to score for the NLL of a trace given the prompt: all up to the trace, and the trace's tokens."""
    target = chat.target_ids(trace, "")
    span, _ = chat.part_spans(target)
    return _pair(chat, prompt, target, span)


def answer_pair(chat: Chat, prompt: str, trace: str, answer: str) -> Pair:
    """Returns what to score for the NLL of an answer given prompt and trace: all up to the answer, and its tokens."""
    target = chat.target_ids(trace, answer)
    _, span = chat.part_spans(target)
    return _pair(chat, prompt, target, span)


def _pair(chat: Chat, prompt: str, target: list[int], span: range) -> Pair:
    return [*chat.prompt_ids(prompt), *target[: span.start]], target[span.start : span.stop]
