"""Pairs of prompt and target ids for the log-probability of a trace or of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Chat

Pair = tuple[Sequence[int], Sequence[int]]
"""Prompt ids, and the target ids that are scored."""


def trace_pair(chat: Chat, prompt: str, trace: str) -> Pair:
    """Returns the pair for the NLL of a trace given the prompt: all ids before the trace, and the trace's ids."""
    target = chat.target_ids(trace, "")
    span, _ = chat.part_spans(target)
    return _pair(chat, prompt, target, span)


def answer_pair(chat: Chat, prompt: str, trace: str, answer: str) -> Pair:
    """Returns the pair for the NLL of an answer given prompt and trace: all ids before the answer, and its ids."""
    target = chat.target_ids(trace, answer)
    _, span = chat.part_spans(target)
    return _pair(chat, prompt, target, span)


def _pair(chat: Chat, prompt: str, target: list[int], span: range) -> Pair:
    return [*chat.prompt_ids(prompt), *target[: span.start]], target[span.start : span.stop]
