"""Between text and tokens: prompt ids, target ids, and the seam between them that is the loss mask.

The tokenizer's own chat template renders the prompt and nothing else. It never renders the assistant's turn, because stock
R1-Distill templates drop everything up to `</think>` from an assistant message: target ids are written here in the family's
format, tokenized apart from the prompt and appended. So the mask is the seam itself, never the length of a re-tokenized prefix,
which is wrong where a tokenizer merges across the seam (`<think>\\n` is two tokens of R1-Distill and `<think>\\n\\n</think>` is
three, whose second is neither).

Prompts, traces and answers are plain text (`plain_text.py`); everything else about a prompt is exactly what
`apply_chat_template` gives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgr_lightning.errors import UserError
from dgr_lightning.models.chat_record import read_record
from dgr_lightning.models.chat_template import ChatTemplate
from dgr_lightning.models.plain_text import PlainTextEncoder, unused_character
from dgr_lightning.models.target_parts import TargetParts
from dgr_lightning.models.thinking import AUTO, MARKS, Parsed, check_prompt_end, detect_style, format_of
from dgr_lightning.models.tokenizer import load_tokenizer, stop_ids
from dgr_lightning.prompts.rendering import prepare_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    """One training example.

    Attributes:
        ids: prompt and target, concatenated.
        num_prompt: how many of them are the prompt, which is not trained on.
        num_truncated: tokens that were cut off, because the example is longer than allowed.
    """

    ids: list[int]
    num_prompt: int
    num_truncated: int = 0


class Chat:
    """A tokenizer with its chat template and its format of thinking.

    Attributes:
        tokenizer: the Hugging Face tokenizer.
        style: of `thinking.STYLES`, never `auto`.
        thinks: whether a turn has a trace; False for the style `none`.
        marks: the opening and the closing think mark; none without thinking.
        closing: the closing mark with the line breaks around it, as a target has it; empty without thinking.
        eos_id: the end token that closes a target.
        pad_id: the padding token; the end token if the tokenizer has none.
        stop_ids: tokens that end a generation: the end token first, then others that the folder names.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        style: str = AUTO,
        more_stop_ids: Sequence[int] = (),
        system_prompt: str | None = None,
        template_args: Mapping[str, Any] | None = None,
        marks: Sequence[str] | None = None,
    ) -> None:
        """Takes a loaded tokenizer; the usual way is `Chat.load`, which reads one from a folder.

        Args:
            tokenizer: with a chat template and an end token.
            style: of `thinking.STYLES`; `auto` takes the one that the tokenizer gives evidence of.
            more_stop_ids: tokens that end a generation besides the end token.
            system_prompt: the system message before every prompt; None: what the template writes by itself.
            template_args: further arguments of the template.
            marks: the opening and the closing mark of the style `marks`.

        Raises:
            UserError: no chat template or one that cannot be rendered, no end token, no style that fits, or a template that
                does not take the system message.
        """
        name = tokenizer.name_or_path or "the tokenizer"
        self._template = ChatTemplate(tokenizer, system_prompt, template_args)
        if not isinstance(tokenizer.eos_token_id, int):
            raise UserError(f"{name} has no end token. Set eos_token in its tokenizer_config.json.")
        self.tokenizer = tokenizer
        self.eos_id: int = tokenizer.eos_token_id
        self.pad_id: int = self.eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((self.eos_id, *more_stop_ids)))
        self._text = PlainTextEncoder(tokenizer, marks or ())
        # A padding token that is an ordinary word is never stripped from text.
        self._end_ids = {*self.stop_ids, *({self.pad_id} & set(self._text.controls.values()))}
        self.style = detect_style(name, self._template.text, self._text.controls) if style == AUTO else style
        self._format = format_of(self.style, marks)
        self.thinks, self.marks, self.closing = self._format.thinks, self._format.marks, self._format.closing
        if self.style == "think" and not self._text.controls.keys() >= set(self.marks):
            raise UserError(
                f"{name} has no tokens <think> and </think>, which model.chat_style=think needs. Write "
                "model.chat_style=think-text for a model that writes them as ordinary text, or model.chat_style=none for one "
                "that does not think."
            )
        self._any_mark = re.compile("|".join(map(re.escape, self.marks)) or "(?!)")

        prompt_end = self._template.render("?")
        if "?" not in prompt_end:
            raise UserError(
                f"{name}: its chat template never shows the user's message. Put a chat_template.jinja into it that does."
            )
        if system_prompt is not None and system_prompt.strip() not in prompt_end:
            raise UserError(f"{name}: its chat template drops a system message. Write model.system_prompt=null.")
        check_prompt_end(name, self._format, prompt_end)
        self._prefilled = self._format.opens(prompt_end)
        open_ids, close_ids = (
            self._encode_turn(mark, "", "", "") for mark in (self._format.open_mark, self._format.close_mark)
        )
        for mark, ids in zip(self.marks, (open_ids, close_ids), strict=False):
            if "".join(self._text.decode(ids).split()) != "".join(mark.split()):
                raise UserError(f"{name} cannot write {mark}: it is not in its vocabulary. Write another model.chat_style.")
        self._parts = TargetParts(self._text, self._format, [] if self._prefilled else open_ids, close_ids)
        if self._prefilled:
            self._opening = "" if prompt_end.endswith("\n") else "\n"
        else:
            self._opening = self._format.open_mark + "\n" if self.thinks else ""

    @classmethod
    def load(
        cls,
        folder: Path,
        style: str = AUTO,
        trust_remote_code: bool = False,
        system_prompt: str | None = None,
        template_args: Mapping[str, Any] | None = None,
        marks: Sequence[str] | None = None,
    ) -> Chat:
        """Loads tokenizer, chat template and stop tokens from a model's folder.

        Args:
            folder: local Hugging Face folder. What is not given besides (`auto`, None, nothing) is taken from the record in it,
                where an export has left one.
            style: as the others in `__init__`.
            trust_remote_code: whether a tokenizer class in the folder may run.
            system_prompt: see there.
            template_args: see there.
            marks: see there.

        Raises:
            UserError: no tokenizer that loads, one that encodes differently from its own tokenizer.json, a record that is none,
                or as `__init__`.
        """
        prepare_chat()
        record = read_record(folder)
        if style == AUTO:
            style, marks = record.chat_style, record.think_marks if marks is None else marks
        system_prompt = record.system_prompt if system_prompt is None else system_prompt
        tokenizer = load_tokenizer(folder, trust_remote_code)
        return cls(tokenizer, style, stop_ids(folder), system_prompt, template_args or record.template_args, marks)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that prompts and parsing depend on besides the tokenizer, JSON-able; what is not set is left out."""
        set_: dict[str, Any] = {"think_marks": list(self.marks)} if self.style == MARKS else {}
        set_ |= {"system_prompt": self._template.system_prompt, "template_args": self._template.args}
        return {"chat_style": self.style} | {name: value for name, value in set_.items() if value}

    def with_system_prompt(self, system_prompt: str) -> Chat:
        """Returns the same chat with another system message.

        Raises:
            UserError: as `__init__`.
        """
        marks = self.marks if self.style == MARKS else None
        return Chat(self.tokenizer, self.style, self.stop_ids, system_prompt, self._template.args, marks)

    # --- Text to tokens ---------------------------------------------------------------------------------------------------

    def prompt_ids(self, prompt: str, thinking: bool = True, begun: str = "") -> list[int]:
        """Returns the ids of the rendered prompt, up to where the model continues.

        Args:
            prompt: the user's message.
            thinking: False appends a closed, empty block of thinking, so that the model answers at once.
            begun: what of the model's own turn is given to it, from `beginning`.
        """
        # Rendered before control tokens are split, so that a template that trims its messages still does.
        begun = begun if thinking else self.beginning("", closed=True)
        seam = unused_character(prompt + begun)
        return self._text.encode(self._template.render(self._text.split(prompt, seam)) + begun, seam)

    def beginning(self, text: str, *, closed: bool = False) -> str:
        """Returns how a turn begins whose thought begins with a text; without thinking, whose answer does.

        Args:
            text: marks in it are marks.
            closed: whether the thought ends with it.
        """
        return self._opening + text + (self._format.closing if closed else "")

    def written_ids(self, text: str) -> list[int]:
        """Returns the ids of what a model wrote, control tokens in it as such, to have it go on behind it."""
        return self._text.encode(text, unused_character(text))

    def joined(self, first: str, second: str) -> str:
        """Returns the text of two pieces of one turn, as the tokens of both would be decoded."""
        return self._text.joined(first, second)

    def target_ids(self, trace: str, answer: str) -> list[int]:
        """Returns the ids that a model is to write after the prompt, all of them trained on.

        They are the rest of the opening mark that is not in the prompt, trace, closing mark, answer and end token.

        Raises:
            UserError: there is a trace, and the style has none.
        """
        if not self.thinks and trace.strip():
            raise UserError(
                "it has a trace, which model.chat_style=none has no place for. Write the model.chat_style that marks thinking, "
                "or train on rows without a trace: data.fields.constant_trace= data.fields.answer=<column> reads answers alone."
            )
        return [*self._encode_turn(self._opening, trace, self._format.closing, answer), self.eos_id]

    def encode(
        self, prompt: str, trace: str, answer: str, max_length: int, *, truncate: str = "trace", append_eos: bool = True
    ) -> Encoded:
        """Returns an example's ids, at most `max_length` of them.

        Args:
            prompt: the user's message.
            trace: the reasoning.
            answer: what follows it.
            max_length: tokens that a longer example is cut to.
            truncate: `trace` cuts the end of the trace, and answer and marks stay complete; `left` cuts the beginning.
            append_eos: whether the end token follows the answer.

        Raises:
            UserError: it is too long even with an empty trace, or as `target_ids`.
        """
        prompt_ids, target_ids = self.prompt_ids(prompt), self.target_ids(trace, answer)
        end = [self.eos_id] if append_eos else []
        target_ids = target_ids[:-1] + end
        excess = len(prompt_ids) + len(target_ids) - max_length
        if excess <= 0:
            return Encoded(prompt_ids + target_ids, len(prompt_ids))
        if truncate == "left":
            return Encoded((prompt_ids + target_ids)[excess:], max(0, len(prompt_ids) - excess), excess)
        opening, ending = self._around_trace(answer, end)
        room = max_length - len(prompt_ids) - len(opening) - len(ending)
        if room < 0:
            raise UserError(
                f"sft.max_length={max_length} has no room for a prompt of {len(prompt_ids)} tokens and its answer and "
                f"marks of {len(opening) + len(ending)}; write sft.max_length={max_length - room} or more, or leave that "
                "row out."
            )
        trace_ids = self._text.whole_characters(self._encode_turn("", trace, "", "")[:room])
        truncated = opening + trace_ids + ending
        return Encoded(prompt_ids + truncated, len(prompt_ids), len(target_ids) - len(truncated))

    def shortest(self, prompt: str, answer: str, *, append_eos: bool = True) -> int:
        """Returns the tokens of an example of which `encode` has cut the whole trace."""
        opening, ending = self._around_trace(answer, [self.eos_id] if append_eos else [])
        return len(self.prompt_ids(prompt)) + len(opening) + len(ending)

    def part_spans(self, target_ids: Sequence[int]) -> tuple[range, range]:
        """Returns the positions of the trace and of the answer in a target.

        All others are marks, white space between marks and text, and the end token. A token that holds the end of a text and
        the line break after it (`.\\n` is one of Qwen's) belongs to the text. A part without text has no positions.

        Args:
            target_ids: from `target_ids`, or the target of `encode`, truncated or not.

        Raises:
            ValueError: they have no closing mark.
        """
        end = len(target_ids) - (target_ids[-1] == self.eos_id)
        if not self.thinks:
            return range(0), self._text.without_white_space(target_ids, 0, end)
        return self._parts.spans(target_ids[:end])

    # --- Tokens to text ---------------------------------------------------------------------------------------------------

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids` with control tokens, but without end tokens and padding at its end."""
        end = len(ids)
        while end and ids[end - 1] in self._end_ids:
            end -= 1
        return self._text.decode(ids[:end])

    def parse(self, text: str, thinking: bool = True, *, finished: bool = False) -> Parsed:
        """Parses what a model wrote after a prompt into trace and answer; `has_marks` finds a second closing mark in them.

        Args:
            text: the decoded completion.
            thinking: False if the prompt ended in a closed block of thinking: then all of the text is the answer.
            finished: whether the model ended the turn itself: then text in which no thought was opened is an answer, unless
                the prompt had opened one.
        """
        return self._format.parse(text, opened=self._prefilled, finished=finished) if thinking else Parsed("", text.strip())

    def spells_mark(self, text: str) -> bool:
        """Whether a trace or an answer that is trained on spells a mark that is ordinary text, so that it reads as the mark."""
        return self._parts.marks_are_text and self._any_mark.search(text) is not None

    def has_marks(self, text: str) -> bool:
        """Whether a trace or an answer spells out a think mark or any control token of this tokenizer."""
        return self._any_mark.search(text) is not None or self._text.has_control(text)

    def is_control(self, id_: int) -> bool:
        """Whether an id is a control token's."""
        return self._text.is_control(id_)

    def token_text(self, id_: int) -> str:
        """Returns the text of one token, whichever it is."""
        return self._text.decode([id_])

    def template_ids(self, prompt: str) -> list[int]:
        """Returns the prompt's ids as the template alone gives them, to an engine that renders messages itself."""
        return self._template.ids(prompt)

    def _around_trace(self, answer: str, end: list[int]) -> tuple[list[int], list[int]]:
        """Returns the ids before and after a trace that is tokenized apart from them."""
        return self._encode_turn(self._opening, "", "", ""), self._encode_turn("", "", self._format.closing, answer) + end

    def _encode_turn(self, opening: str, trace: str, closing: str, answer: str) -> list[int]:
        """Returns the ids of a turn in one piece, merged across its parts as a model merges them when it writes."""
        seam = unused_character(trace + answer)
        return self._text.encode(opening + self._text.split(trace, seam) + closing + self._text.split(answer, seam), seam)
