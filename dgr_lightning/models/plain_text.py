"""Text that stays text: control tokens spelled out in it are tokenized as the characters that they consist of.

So nothing that a user, a data set or a model writes (`<think>`, `<|im_end|>`, `<｜Assistant｜>`) can open a turn, close a
trace or end a generation.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PlainTextEncoder:
    """A tokenizer that can be told which parts of a text are plain.

    Attributes:
        controls: its control tokens and their ids: the special ones, those that only look like it (<think>, <｜User｜>), and
            think marks that are tokens. Others that were added to a vocabulary, such as runs of spaces, are text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, marks: Sequence[str] = ()) -> None:
        """Takes a loaded tokenizer, and think marks that are control tokens if they are tokens at all."""
        self._tokenizer = tokenizer
        self.controls: dict[str, int] = {
            token.content: id_
            for id_, token in tokenizer.added_tokens_decoder.items()
            if token.special or token.content in marks or (token.content.startswith("<") and token.content.endswith(">"))
        }
        self._control_ids = set(self.controls.values())
        # The look-ahead finds overlapping ones, too. A control token of one character could not be split.
        self._control = re.compile("|".join(f"(?={re.escape(text)})" for text in self.controls if len(text) > 1) or "(?!)")

    def is_control(self, id_: int) -> bool:
        """Whether an id is a control token's."""
        return id_ in self._control_ids

    def has_control(self, text: str) -> bool:
        """Whether a text spells out a control token."""
        return self._control.search(text) is not None

    def split(self, text: str, seam: str) -> str:
        """Returns a plain text with `seam` after the first character of every control token that it spells out."""
        cuts = [match.start() + 1 for match in self._control.finditer(text)]
        return seam.join(text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True))

    def encode(self, text: str, seam: str) -> list[int]:
        """Returns the ids of a text whose pieces between seams are tokenized apart; no token is added before or after."""
        return [id_ for piece in text.split(seam) for id_ in self._tokenizer.encode(piece, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, control tokens included."""
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def joined(self, first: str, second: str) -> str:
        """Returns the text of two pieces that were generated one behind the other.

        Most tokenizers write the space before a word as part of its token. One of whole words writes it between two tokens, so
        that neither piece has it.
        """
        if not first or not second or first[-1].isspace() or second[0].isspace():
            return first + second
        last, next_ = (self._tokenizer.encode(text, add_special_tokens=False) for text in (first, second))
        apart = [self.decode(last[-1:]), self.decode(next_[:1])]
        return f"{first} {second}" if self.decode([*last[-1:], *next_[:1]]) == " ".join(apart) else first + second

    def whole_characters(self, ids: list[int]) -> list[int]:
        """Returns ids without a last character of which only some bytes are left: at most three tokens fewer."""
        for num_dropped in range(4):
            kept = ids[: len(ids) - num_dropped]
            if not self.decode(kept[-4:]).endswith("\N{REPLACEMENT CHARACTER}"):
                return kept
        return ids

    def tokens_within(self, ids: Sequence[int], begin: int, end: int) -> range:
        """Returns the positions of the tokens whose whole text lies between two characters of the text of all `ids`."""

        def length(num_tokens: int) -> int:
            # Bytes of an unfinished character decode to one replacement character, or to one each.
            return len(self.decode(ids[:num_tokens]).rstrip("\N{REPLACEMENT CHARACTER}"))

        counts = range(len(ids) + 1)
        first = bisect_left(counts, begin, key=length)
        return range(first, max(first, bisect_right(counts, end, key=length) - 1))

    def without_white_space(self, ids: Sequence[int], begin: int, end: int) -> range:
        """Returns the positions `begin` … `end` of ids without tokens of white space at either end."""
        while begin < end and not self.decode([ids[begin]]).strip():
            begin += 1
        while begin < end and not self.decode([ids[end - 1]]).strip():
            end -= 1
        return range(begin, end)


def unused_character(text: str) -> str:
    """Returns a Unicode non-character that `text` does not contain, to be its seam; there are 32, and no text uses any."""
    return next(mark for mark in map(chr, range(0xFDD0, 0xFDF0)) if mark not in text)
