"""A prompt and a reply to it as one conversation that is shown to another model, such as a guard, which judges the reply.

The guard's own chat template writes it, or, for guards that have none for the purpose, the prompt text that its authors
published. What is judged stays plain text (`plain_text.py`): no control token of the guard that a model spells out in its reply
can end the guard's turn, open another one, or stand for the guard's verdict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.errors import UserError
from dgr_lightning.models.chat_template import ChatTemplate
from dgr_lightning.models.plain_text import PlainTextEncoder, unused_character
from dgr_lightning.models.tokenizer import load_tokenizer, stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLACEHOLDER = re.compile(r"\{(prompt|reply)\}")


class Conversation:
    """A tokenizer with the text that shows a prompt and a reply to its model.

    Attributes:
        tokenizer: the Hugging Face tokenizer.
        template: the source of that text: a chat template, or a text with the placeholders `{prompt}` and `{reply}`.
        pad_id: the padding token; an end token if the tokenizer has none.
        stop_ids: tokens that end a generation.
        marks: none, since nothing in it is a thought.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, more_stop_ids: Sequence[int] = (), text: str | None = None) -> None:
        """Takes a loaded tokenizer; the usual way is `Conversation.load`.

        Args:
            tokenizer: with a chat template, unless there is a `text`.
            more_stop_ids: tokens that end a generation besides the tokenizer's end token.
            text: shown in place of what the chat template writes.

        Raises:
            UserError: there is neither a chat template nor a text, or no end token.
        """
        ends = [id_ for id_ in (tokenizer.eos_token_id, *more_stop_ids) if isinstance(id_, int)]
        if not ends:
            name = tokenizer.name_or_path or "the tokenizer"
            raise UserError(f"{name} has no end token. Set eos_token in its tokenizer_config.json.")
        self.tokenizer = tokenizer
        self.marks: tuple[str, ...] = ()
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys(ends))
        self.pad_id: int = ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._plain = PlainTextEncoder(tokenizer)
        self._chat = ChatTemplate(tokenizer) if text is None else None
        self.template: str = text if self._chat is None else self._chat.text  # type: ignore[assignment]

    @classmethod
    def load(cls, folder: Path, text: str | None = None) -> Conversation:
        """Loads tokenizer, chat template and stop tokens from a model's folder; code in it is never run.

        Raises:
            UserError: no tokenizer that loads, or as `__init__`.
        """
        return cls(load_tokenizer(folder), stop_ids(folder), text)

    def rendered(self, prompt: str, reply: str) -> str:
        """Returns what the model is shown, up to where it continues.

        Raises:
            UserError: the chat template fails on it, or exceeds a limit.
        """
        if self._chat is not None:
            return self._chat.render_messages([{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}])
        given = {"prompt": prompt, "reply": reply}
        return _PLACEHOLDER.sub(lambda match: given[match[1]], self.template)

    def prompt_ids(self, prompt: str, reply: str) -> list[int]:
        """Returns the tokens of `rendered`; control tokens that prompt and reply spell out are tokenized as text.

        A chat template's text is tokenized as it is. A published text is tokenized as its model's tokenizer tokenizes any text:
        with the token in front that opens one, unless the text has it.

        Raises:
            UserError: as for `rendered`.
        """
        seam = unused_character(prompt + reply)
        shown = self.rendered(self._plain.split(prompt, seam), self._plain.split(reply, seam))
        ids = self._plain.encode(shown, seam)
        opening = self.tokenizer.encode("", add_special_tokens=True)[:1] if self._chat is None else []
        opens = opening == [self.tokenizer.bos_token_id] and ids[:1] != opening
        return [*opening, *ids] if opens else ids

    def continuations(self, head: str, words: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Returns how the model may go on after some text of its own: the tokens that all words share, and the rest of each.

        Words are tokenized behind the text, not apart from it: a tokenizer may merge across the seam.
        """
        whole = [self.tokenizer.encode(head + word, add_special_tokens=False) for word in words]
        num_shared = next((i for i, ids in enumerate(zip(*whole, strict=False)) if len(set(ids)) > 1), min(map(len, whole)))
        return whole[0][:num_shared], [ids[num_shared:] for ids in whole]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids` with control tokens, but without end tokens and padding at its end."""
        ends, end = {*self.stop_ids, self.pad_id}, len(ids)
        while end and ids[end - 1] in ends:
            end -= 1
        return self._plain.decode(ids[:end])
