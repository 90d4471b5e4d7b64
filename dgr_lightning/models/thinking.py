"""How a model family writes a turn: its marks around thinking, and generated text parsed into trace and answer."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from dgr_lightning.errors import UserError


@dataclass(frozen=True)
class Parsed:
    """Generated text parsed into its parts: no answer if thinking was not closed, no trace if it never began."""

    trace: str | None
    answer: str | None


@dataclass(frozen=True)
class Format:
    """A family's turn: opening mark, trace, `closing`, answer, end token.

    Attributes:
        open_mark: begins the trace; a line break follows it.
        close_mark: ends the trace and begins the answer.
        closing: `close_mark` with the line breaks around it.
    """

    open_mark: str
    close_mark: str
    closing: str

    def parse(self, text: str, opened: bool) -> Parsed:
        """Parses generated text; white space around trace and answer is stripped.

        The first closing mark ends the trace, as in vLLM's reasoning parsers.

        Args:
            text: the decoded completion.
            opened: whether the prompt ended in the opening mark.
        """
        if not opened and text.lstrip().startswith(self.open_mark):
            opened, text = True, text.lstrip()[len(self.open_mark) :]
        trace, mark, answer = text.partition(self.close_mark)
        if mark:
            return Parsed(trace.strip(), answer.strip())
        return Parsed(trace.strip() if opened else None, None)


FORMATS = {
    # DeepSeek-R1 and its distillations, QwQ, Qwen3: as in their released chat templates.
    "think": Format("<think>", "</think>", "\n</think>\n\n"),
    # s1 and s1.1: https://github.com/simplescaling/s1, data/tokenization.py.
    "s1": Format("<|im_start|>think", "<|im_start|>answer", "\n<|im_start|>answer\n"),
}


def detect_style(name: str, template: str | dict[str, str], controls: Container[str]) -> str:
    """Returns the key in `FORMATS` that a tokenizer was made for: its own think marks, or s1's on Qwen2.5's vocabulary.

    Args:
        name: of the tokenizer, for messages.
        template: its chat template.
        controls: its control tokens.

    Raises:
        UserError: neither fits.
    """
    if FORMATS["think"].open_mark in controls and FORMATS["think"].close_mark in controls:
        return "think"
    if "<|im_start|>" in controls and "<|im_start|>" in str(template):
        return "s1"
    raise UserError(
        f"{name}: neither <think> and </think> nor <|im_start|> turns, so no thinking style fits. This project tunes reasoning "
        "models; name one, or say what it uses with model.chat_style=think or model.chat_style=s1."
    )
