"""Between text and tokens: prompt ids, target ids, the mask between them, and generated text taken apart again.

The tokenizer's own chat template renders the prompt and nothing else. The assistant's turn is never rendered with it, because
stock R1-Distill templates drop everything up to `</think>` from an assistant message: target ids are written out here in the
family's format, tokenized apart from the prompt and appended. So the mask is the seam itself, never the length of a
re-tokenized prefix, which is wrong where a tokenizer merges across the seam (`<think>\\n` is two tokens of R1-Distill and
`<think>\\n\\n</think>` is three, whose second is neither).

Text from a user, a data set or a model is text: a control token spelled out in it (`<think>`, `<|im_end|>`,
`<｜Assistant｜>`) is tokenized as the characters it consists of, so nothing that is typed can open a turn, close a trace or
end a generation. Everything else about a prompt is exactly what `apply_chat_template` gives.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.models.tokenizer import load_tokenizer, stop_ids

if TYPE_CHECKING:
    from rich.console import RenderableType
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Format:
    """How a model family writes a turn: opening mark, trace, `closing`, answer, end token.

    Attributes:
        open_mark: what begins the trace; a line break follows it.
        close_mark: what ends the trace and begins the answer.
        closing: `close_mark` with the line breaks around it.
    """

    open_mark: str
    close_mark: str
    closing: str


FORMATS = {
    # DeepSeek-R1 and its distillations, QwQ, Qwen3: as in their released chat templates.
    "think": Format("<think>", "</think>", "\n</think>\n\n"),
    # s1 and s1.1: https://github.com/simplescaling/s1, data/tokenization.py.
    "s1": Format("<|im_start|>think", "<|im_start|>answer", "\n<|im_start|>answer\n"),
}


@dataclass(frozen=True)
class Encoded:
    """One training example.

    Attributes:
        ids: prompt and target in a row.
        num_prompt: how many of them are the prompt, and not trained on.
        num_truncated: tokens that the end of the trace lost because the example is longer than it may be.
    """

    ids: list[int]
    num_prompt: int
    num_truncated: int = 0


@dataclass(frozen=True)
class Parsed:
    """Generated text taken apart. Where thinking was not closed there is no answer; where it never began, no trace."""

    trace: str | None
    answer: str | None


class Chat:
    """A tokenizer with its chat template and its way of marking thinking.

    Attributes:
        tokenizer: the Hugging Face tokenizer.
        style: `think` or `s1`.
        eos_id: the end token that closes a target.
        pad_id: what fills up a batch; the end token where the tokenizer has no padding token.
        stop_ids: tokens that end a generation: the end token first, then others that the folder names.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: str = "auto", more_stop_ids: Sequence[int] = ()) -> None:
        """Takes a loaded tokenizer; `Chat.load` reads one from a folder and is the usual way here.

        Args:
            tokenizer: with a chat template and an end token.
            style: `think`, `s1`, or `auto`, which reads it off the tokenizer.
            more_stop_ids: tokens that end a generation besides the end token.

        Raises:
            UserError: no chat template, no end token, or no style that fits.
        """
        name = tokenizer.name_or_path or "the tokenizer"
        if not tokenizer.chat_template:
            raise UserError(f"{name} has no chat template. Name a chat model's folder, or put its chat_template.jinja there.")
        if not isinstance(tokenizer.eos_token_id, int):
            raise UserError(f"{name} has no end token. Set eos_token in its tokenizer_config.json.")
        self.tokenizer = tokenizer
        self.eos_id: int = tokenizer.eos_token_id
        self.pad_id: int = self.eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((self.eos_id, *more_stop_ids)))
        # Control tokens: the special ones, and those that only look like it (<think>, <｜User｜>). Others that were added to a
        # vocabulary, such as runs of spaces, are text.
        controls = {
            token.content: id_
            for id_, token in tokenizer.added_tokens_decoder.items()
            if token.special or (token.content.startswith("<") and token.content.endswith(">"))
        }
        self._control_ids = set(controls.values())
        # The look-ahead finds those that overlap, too. A control token of one character could not be split.
        self._control = re.compile("|".join(f"(?={re.escape(text)})" for text in controls if len(text) > 1) or "(?!)")
        # A padding token that is an ordinary word is never cut from text.
        self._cut = {*self.stop_ids, *({self.pad_id} & set(controls.values()))}
        self.style = _detect(name, tokenizer.chat_template, controls) if style == "auto" else style
        self._format = FORMATS[self.style]
        marks = (self._format.open_mark, self._format.close_mark)
        if self.style == "think" and not controls.keys() >= set(marks):
            raise UserError(f"{name} has no tokens <think> and </think>, so model.chat_style=think cannot be; try s1.")
        self._marks = re.compile("|".join(map(re.escape, marks)))

        tail = self._render("?")
        self._prefilled = tail.rstrip().endswith(self._format.open_mark)
        self._open_ids = [] if self._prefilled else self._encode_parts(self._format.open_mark, "", "", "")
        self._close_ids = self._encode_parts(self._format.close_mark, "", "", "")
        if not self._prefilled:
            self._opening = self._format.open_mark + "\n"
        else:
            self._opening = "" if tail.endswith("\n") else "\n"

    @classmethod
    def load(cls, folder: Path, style: str = "auto", trust_remote_code: bool = False) -> Chat:
        """Loads tokenizer, chat template and stop tokens from a model's folder.

        Args:
            folder: local Hugging Face folder.
            style: `auto`, `think` or `s1`.
            trust_remote_code: whether a tokenizer class that comes with the folder may run.

        Raises:
            UserError: no tokenizer there that can be loaded, one that encodes otherwise than its own tokenizer.json, or one
                that `Chat` has no use for.
        """
        return cls(load_tokenizer(folder, trust_remote_code), style, stop_ids(folder))

    def prompt_ids(self, prompt: str, thinking: bool = True) -> list[int]:
        """Returns the ids of the whole prompt, up to where the model goes on.

        Args:
            prompt: what the user asks.
            thinking: False appends a closed, empty block of thinking, so that the answer comes at once.
        """
        # Rendered before it is split, so that a template that trims its messages still does.
        seam = _unused_character(prompt)
        rendered = self._render(self._split_controls(prompt, seam))
        return self._encode(rendered if thinking else rendered + self._opening + self._format.closing, seam)

    def target_ids(self, trace: str, answer: str) -> list[int]:
        """Returns the ids that a model is to write after the prompt, all of them trained on.

        They are what the prompt leaves of the opening mark, the trace, the closing mark, the answer, and the end token.
        """
        return [*self._encode_parts(self._opening, trace, self._format.closing, answer), self.eos_id]

    def encode(self, prompt: str, trace: str, answer: str, max_length: int) -> Encoded:
        """Returns an example's ids, at most `max_length` of them.

        A longer example loses the end of its trace, never a token of its answer or its marks.

        Raises:
            UserError: it is too long even with an empty trace.
        """
        prompt_ids, target_ids = self.prompt_ids(prompt), self.target_ids(trace, answer)
        if len(prompt_ids) + len(target_ids) > max_length:
            opening = self._encode_parts(self._opening, "", "", "")
            ending = [*self._encode_parts("", "", self._format.closing, answer), self.eos_id]
            room = max_length - len(prompt_ids) - len(opening) - len(ending)
            if room < 0:
                raise UserError(
                    f"sft.max_length={max_length} has no room for a prompt of {len(prompt_ids)} tokens and its answer and "
                    f"marks of {len(opening) + len(ending)}; write sft.max_length={max_length - room} or more, or leave that "
                    "row out."
                )
            cut = opening + self._whole_characters(self._encode_parts("", trace, "", "")[:room]) + ending
            return Encoded(prompt_ids + cut, len(prompt_ids), len(target_ids) - len(cut))
        return Encoded(prompt_ids + target_ids, len(prompt_ids))

    def part_spans(self, target_ids: Sequence[int]) -> tuple[range, range]:
        """Returns which positions of a target are its trace, and which its answer.

        The rest are the marks, the white space between them and a text, and the end token. A token that holds the end of a text
        and the line break behind it (`.\\n` is one of Qwen's) is the text's. A part without text has no positions.

        Args:
            target_ids: from `target_ids`, or those of `encode`, cut or not.

        Raises:
            ValueError: there is no closing mark in them.
        """
        begin, size = len(self._open_ids), len(self._close_ids)
        for close, id_ in enumerate(target_ids):
            # Text that spells a mark out is tokenized otherwise, so this is the mark itself.
            if id_ == self._close_ids[0] and list(target_ids[close : close + size]) == self._close_ids:
                return self._trimmed(target_ids, begin, close), self._trimmed(target_ids, close + size, len(target_ids) - 1)
        raise ValueError("no closing mark: not the ids of a target")

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`, control tokens kept; end tokens and padding behind the text are cut."""
        end = len(ids)
        while end and ids[end - 1] in self._cut:
            end -= 1
        return self._text(ids[:end])

    def parse(self, text: str, thinking: bool = True) -> Parsed:
        """Takes apart what a model wrote after a prompt, white space around trace and answer cut.

        The first closing mark ends the trace, as in vLLM's reasoning parsers; `has_marks` finds a second one.

        Args:
            text: the decoded completion.
            thinking: False if the prompt ended in a closed block of thinking: then all of it is the answer.
        """
        if not thinking:
            return Parsed("", text.strip())
        begun = self._prefilled
        if not begun and text.lstrip().startswith(self._format.open_mark):
            begun, text = True, text.lstrip()[len(self._format.open_mark) :]
        trace, mark, answer = text.partition(self._format.close_mark)
        if mark:
            return Parsed(trace.strip(), answer.strip())
        return Parsed(trace.strip() if begun else None, None)

    def has_marks(self, text: str) -> bool:
        """Says whether a trace or an answer spells out a think mark or any control token of this tokenizer."""
        return bool(self._marks.search(text) or self._control.search(text))

    def show(self, example: Example, num_shown: int = 160, *, hide_text: bool = False) -> RenderableType:
        """Returns an example for the terminal, token by token; the target, which is trained on, is marked.

        Args:
            example: any example.
            num_shown: of prompt and target each, at most so many tokens are shown; the middle of a longer one is left out.
            hide_text: show control tokens alone, and of what lies between them how many tokens it is.
        """
        from rich.panel import Panel
        from rich.text import Text

        body = Text()
        for name, look, ids in (
            ("prompt, not trained on", "dim", self.prompt_ids(example.prompt)),
            ("target, trained on", "bold green", self.target_ids(example.trace, example.answer)),
        ):
            body.append(f"{name}: {len(ids)} tokens\n", "underline")
            half, tokens = num_shown // 2, self._hidden(ids) if hide_text else [self._visible(id_) for id_ in ids]
            if len(tokens) > num_shown:
                tokens[half:-half] = [f" … {len(ids) - 2 * half} more … "]
            for token in tokens:
                body.append(token, look).append("│", "bright_black")
            body.append("\n")
        body.rstrip()
        return Panel(body, title=f"{example.id}, as the model sees it", title_align="left")

    def _visible(self, id_: int) -> str:
        return self._text([id_]).replace("\n", "⏎")

    def _hidden(self, ids: Sequence[int]) -> list[str]:
        shown = []
        for is_control, group in groupby(ids, key=lambda id_: id_ in self._control_ids):
            run = list(group)
            shown += [self._visible(id_) for id_ in run] if is_control else [f" {len(run)} of text "]
        return shown

    def _render(self, prompt: str) -> str:
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        assert isinstance(text, str)
        return text

    def _split_controls(self, text: str, seam: str) -> str:
        """Returns `text` with `seam` behind the first character of every control token spelled out in it."""
        cuts = [match.start() + 1 for match in self._control.finditer(text)]
        return seam.join(text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True))

    def _encode(self, text: str, seam: str) -> list[int]:
        """Returns the ids of `text`, what lies between two seams tokenized apart; no token is added in front or behind."""
        return [id_ for piece in text.split(seam) for id_ in self.tokenizer.encode(piece, add_special_tokens=False)]

    def _encode_parts(self, opening: str, trace: str, closing: str, answer: str) -> list[int]:
        """Returns the ids of a turn in one piece, merged across its parts as a model merges them when it writes."""
        seam = _unused_character(trace + answer)
        return self._encode(opening + self._split_controls(trace, seam) + closing + self._split_controls(answer, seam), seam)

    def _text(self, ids: Sequence[int]) -> str:
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def _trimmed(self, ids: Sequence[int], begin: int, end: int) -> range:
        """Returns the positions `begin` … `end` without tokens of white space at either end."""
        while begin < end and not self._text([ids[begin]]).strip():
            begin += 1
        while begin < end and not self._text([ids[end - 1]]).strip():
            end -= 1
        return range(begin, end)

    def _whole_characters(self, ids: list[int]) -> list[int]:
        """Returns `ids` without a last character of which only some bytes are left: at most three tokens less."""
        for cut in range(4):
            kept = ids[: len(ids) - cut]
            if not self._text(kept[-4:]).endswith("\N{REPLACEMENT CHARACTER}"):
                return kept
        return ids


def _detect(name: str, template: str | dict[str, str], controls: Container[str]) -> str:
    """Returns the style that a tokenizer is made for: its own think marks, or turns with s1's on Qwen2.5's vocabulary."""
    if FORMATS["think"].open_mark in controls and FORMATS["think"].close_mark in controls:
        return "think"
    if "<|im_start|>" in controls and "<|im_start|>" in str(template):
        return "s1"
    raise UserError(
        f"{name}: neither <think> and </think> nor <|im_start|> turns, so no thinking style fits. This project tunes reasoning "
        "models; name one, or say what it uses with model.chat_style=think or model.chat_style=s1."
    )


def _unused_character(text: str) -> str:
    """Returns a Unicode non-character that `text` does not hold; there are 32, and text has no use for any."""
    return next(mark for mark in map(chr, range(0xFDD0, 0xFDF0)) if mark not in text)
