"""An audit of a chat format on real examples: what training writes must be what the model reads and what parsing finds.

Each demand was broken by published training code on some model: templates that drop the trace, a think block doubled by the
template's own, an end token that is masked, a prompt that is tokenized otherwise than the engine tokenizes it.
"""

from __future__ import annotations

from collections.abc import Iterator

from dgr_lightning.example import Example
from dgr_lightning.models.chat import Chat

COMES_BACK = "trace and answer come back out of the target"
ONE_THOUGHT = "one thought, opened once and closed once"
NO_THOUGHT = "no thought: all of the target is the answer"
ENDS = "the end token is trained on, after the answer"
SAME_PROMPT = "the prompt is what the model's own chat template gives an engine"


def demands(chat: Chat, *, append_eos: bool = True) -> list[str]:
    """Returns what an example of this format has to fulfil.

    Args:
        chat: the format.
        append_eos: whether the end token is to be trained on.
    """
    return [COMES_BACK, ONE_THOUGHT if chat.thinks else NO_THOUGHT, *([ENDS] if append_eos else []), SAME_PROMPT]


def failed_demands(chat: Chat, example: Example, *, append_eos: bool = True) -> Iterator[str]:
    """Yields the demands that an example does not fulfil.

    Args:
        chat: the format.
        example: as it would be trained on, uncut.
        append_eos: as in `demands`.
    """
    prompt, target = chat.prompt_ids(example.prompt), chat.target_ids(example.trace, example.answer)
    written = chat.decode(target)
    if not _comes_back(chat, example, target, written):
        yield COMES_BACK
    if chat.thinks and not _has_one_thought(chat, example, chat.decode(prompt), written):
        yield ONE_THOUGHT
    if append_eos and (target[-1] != chat.eos_id or chat.part_spans(target)[1].stop > len(target) - 1):
        yield ENDS
    # A prompt that spells out a control token is tokenized as the text that it is, which a template by itself does not do.
    if not chat.has_marks(example.prompt) and prompt != chat.template_ids(example.prompt):
        yield SAME_PROMPT


def _comes_back(chat: Chat, example: Example, target: list[int], written: str) -> bool:
    if chat.has_marks(example.trace) or chat.has_marks(example.answer):
        # It is plain characters in the target, which text alone cannot tell from the token: its ids can.
        trace, answer = (chat.decode(target[span.start : span.stop]) for span in chat.part_spans(target))
    else:
        parsed = chat.parse(written, finished=True)
        trace, answer = parsed.trace or "", parsed.answer or ""
    # Tokens that are whole words may come back with other white space around them.
    return all(
        "".join(back.split()) == "".join(text.split()) for back, text in ((trace, example.trace), (answer, example.answer))
    )


def _has_one_thought(chat: Chat, example: Example, prompt: str, written: str) -> bool:
    """Whether the turn opens and closes one thought, besides the marks that its texts spell out."""
    opening, closing = chat.marks
    texts = example.trace + example.answer
    opened = written.count(opening) + prompt.rstrip().endswith(opening) - texts.count(opening)
    return opened == 1 and written.count(closing) - texts.count(closing) == 1
