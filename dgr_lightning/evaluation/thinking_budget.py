"""Budget forcing: a thought that is still open after so many tokens is closed for the model, which then has to answer.

After Muennighoff et al., "s1: Simple test-time scaling" (arXiv 2501.19393); Safety Tax measures reasoning so. The model is
asked twice: for the tokens of its budget of thinking, and, unless it has ended by then, to go on behind them with what
`evaluation.max_new_tokens` leaves. Between the two stands the close of thinking that its style writes, where the thought is
open. Nobody but the budget ended such a thought, so the output counts as capped, whatever its finish reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dgr_lightning.engines.engine import LENGTH
from dgr_lightning.generation.completions import CompletionStore, StoredCompletion
from dgr_lightning.generation.jobs import Job, StoredRequest
from dgr_lightning.models.chat import Chat

_ANSWER = "/answer"


def budgeted(
    store: CompletionStore,
    key: str,
    prompt_ids: Callable[[], Sequence[int]],
    begun: str,
    chat: Chat,
    thinking_tokens: int,
    max_new_tokens: int,
) -> Job:
    """Returns the job of one output.

    Args:
        store: where its one or two completions are kept.
        key: of the first one.
        prompt_ids: of the prompt, with how the turn is begun.
        begun: that beginning, as text.
        chat: of the model.
        thinking_tokens: after which an open thought is closed.
        max_new_tokens: of the whole output.
    """
    yield [StoredRequest(store, key, key, prompt_ids, thinking_tokens)]
    first = _get(store, key)
    if first.finish_reason != LENGTH:
        return

    def continued() -> list[int]:
        return [*prompt_ids(), *chat.written_ids(_whole(first.text) + _close(chat, begun + first.text))]

    yield [StoredRequest(store, key + _ANSWER, key + _ANSWER, continued, max_new_tokens - thinking_tokens)]


def joined(store: CompletionStore, key: str, begun: str, chat: Chat) -> tuple[StoredCompletion, bool]:
    """Returns an output that `budgeted` has generated, as one completion, and whether its thought was closed for the model."""
    first = _get(store, key)
    if first.finish_reason != LENGTH:
        return first, False
    second, close = _get(store, key + _ANSWER), _close(chat, begun + first.text)
    text = chat.joined(_whole(first.text) + close, second.text)
    return StoredCompletion(text, first.num_tokens + second.num_tokens, second.finish_reason), bool(close)


def _close(chat: Chat, turn: str) -> str:
    """Returns the close of thinking that a turn lacks; empty where its thought is closed, or was never opened."""
    parsed = chat.parse(turn)
    return chat.closing if parsed.trace is not None and parsed.answer is None else ""


def _whole(text: str) -> str:
    """Returns a text without a last character of which only some bytes were generated."""
    return text.rstrip("\N{REPLACEMENT CHARACTER}")


def _get(store: CompletionStore, key: str) -> StoredCompletion:
    completion = store.get(key)
    assert completion is not None, "generated before"
    return completion
