"""How a model family writes a turn: its marks around thinking, and generated text parsed into trace and answer.

Which marks a model writes is its style (`model.chat_style`). `auto` takes a style only on evidence that lies in the model's own
files; a wrong guess would cost hours and end in rates of zero.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from dgr_lightning.errors import UserError

AUTO, MARKS, NONE = "auto", "marks", "none"


@dataclass(frozen=True)
class Parsed:
    """Generated text parsed into its parts.

    Attributes:
        trace: None where thinking never began; empty where the model was not to think.
        answer: None where there is none, because a thought was not closed or the output was cut off before one began.
    """

    trace: str | None
    answer: str | None


@dataclass(frozen=True)
class Format:
    """A family's turn: opening mark, trace, `closing`, answer, end token; without thinking all three marks are empty.

    Attributes:
        open_mark: begins the trace; a line break follows it.
        close_mark: ends the trace and begins the answer.
        closing: `close_mark` with the line breaks around it.
    """

    open_mark: str
    close_mark: str
    closing: str

    @property
    def thinks(self) -> bool:
        """Whether a turn has a trace."""
        return bool(self.close_mark)

    @property
    def marks(self) -> tuple[str, ...]:
        """The opening and the closing mark; none without thinking."""
        return (self.open_mark, self.close_mark) if self.thinks else ()

    def opens(self, prompt_end: str) -> bool:
        """Whether a rendered prompt ends in the opening mark, so that the model begins inside the trace."""
        return self.thinks and prompt_end.rstrip().endswith(self.open_mark)

    def closes(self, prompt_end: str) -> bool:
        """Whether a rendered prompt ends in the closing mark, so that the model begins with the answer."""
        return self.thinks and prompt_end.rstrip().endswith(self.close_mark)

    def parse(self, text: str, *, opened: bool, finished: bool) -> Parsed:
        """Parses generated text; white space around trace and answer is stripped.

        The first closing mark ends the trace, as in vLLM's reasoning parsers. Text without any mark is an answer where the
        model had not been put into a thought and ended the turn itself.

        Args:
            text: the decoded completion.
            opened: whether the prompt ended in the opening mark.
            finished: whether the model ended the turn, and no limit of tokens did.
        """
        if not self.thinks:
            return Parsed("", text.strip())
        if not opened and text.lstrip().startswith(self.open_mark):
            opened, text = True, text.lstrip()[len(self.open_mark) :]
        trace, mark, answer = text.partition(self.close_mark)
        if mark:
            return Parsed(trace.strip(), answer.strip())
        if opened:
            return Parsed(trace.strip(), None)
        return Parsed(None, text.strip() if finished and self.open_mark not in text else None)


_THINK = Format("<think>", "</think>", "\n</think>\n\n")

FORMATS = {
    # DeepSeek-R1 and its distillations, QwQ, Qwen3: as in their released chat templates. Both marks are tokens.
    "think": _THINK,
    # The same written as ordinary text, by models that were tuned from one without such tokens.
    "think-text": _THINK,
    # s1 and s1.1: https://github.com/simplescaling/s1, data/tokenization.py.
    "s1": Format("<|im_start|>think", "<|im_start|>answer", "\n<|im_start|>answer\n"),
    NONE: Format("", "", ""),
}

STYLES = (AUTO, *FORMATS, MARKS)
"""The values of `model.chat_style`."""


def format_of(style: str, marks: Sequence[str] | None) -> Format:
    """Returns the format of a style.

    Args:
        style: one of `STYLES`, not `auto`.
        marks: opening and closing mark, for the style `marks` and for no other.

    Raises:
        UserError: as `check_marks`.
    """
    check_marks(style, marks)
    if marks is None:
        return FORMATS[style]
    open_mark, close_mark = marks
    return Format(open_mark, close_mark, f"\n{close_mark}\n\n")


def check_marks(style: str, marks: Sequence[str] | None) -> None:
    """Checks that marks are given where the style takes them from the user, and only there.

    Raises:
        UserError: they are missing, not two different texts, or given for another style.
    """
    example = 'model.think_marks=\'["<reasoning>","</reasoning>"]\''
    if marks is None:
        if style == MARKS:
            raise UserError(f"model.chat_style=marks: which ones? Write the opening and the closing one, such as {example}.")
        return
    if style != MARKS:
        raise UserError(f"model.think_marks with model.chat_style={style}: marks of your own need model.chat_style=marks.")
    if len(marks) != 2 or not all(mark.strip() == mark != "" for mark in marks) or marks[0] == marks[1]:
        raise UserError(
            f"model.think_marks={list(marks)}: expected two different texts without white space at their ends, the opening and "
            f"the closing mark, such as {example}."
        )


def check_prompt_end(name: str, format_: Format, prompt_end: str) -> None:
    """Checks that a chat template leaves the model where a format expects it: before a thought, or just inside.

    Args:
        name: of the tokenizer, for messages.
        format_: of the style.
        prompt_end: a rendered prompt.

    Raises:
        UserError: the template closes thinking, or opens a thought where the format has none.
    """
    if format_.closes(prompt_end):
        raise UserError(
            f"{name}: its chat template closes thinking before the model begins. Write "
            "model.template_args with the argument that opens it, such as model.template_args={enable_thinking: true}, or "
            "model.chat_style=none to take all of an output as the answer."
        )
    if not format_.thinks and any(known.opens(prompt_end) for known in FORMATS.values()):
        raise UserError(
            f"{name}: its chat template opens a thought, so that an output is not an answer from its beginning, which "
            "model.chat_style=none takes it for. Write model.chat_style=auto."
        )


def detect_style(name: str, template: str, controls: Container[str]) -> str:
    """Returns the style that a tokenizer's own files give evidence of.

    `<think>` and `</think>` among its control tokens are the style `think`; both as text in its chat template alone are
    `think-text`. Nothing else is evidence: a ChatML template is that of s1.1 and of any Qwen2.5-Instruct.

    Args:
        name: of the tokenizer, for messages.
        template: its chat template.
        controls: its control tokens.

    Raises:
        UserError: there is no evidence; the message names the choices.
    """
    if all(mark in controls for mark in _THINK.marks):
        return "think"
    if all(mark in template for mark in _THINK.marks):
        return "think-text"
    raise UserError(
        f"{name}: neither its vocabulary nor its chat template holds <think> and </think>, so nothing says how it marks "
        "thinking. Write model.chat_style=none for a model that does not think (all of an output is then the answer), "
        "model.chat_style=s1 for s1 and s1.1, model.chat_style=think-text for one that writes <think> as ordinary text, or "
        "model.chat_style=marks with model.think_marks for one with marks of its own."
    )
