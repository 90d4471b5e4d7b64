"""Which tokens of a target are its trace and which its answer."""

from __future__ import annotations

from collections.abc import Sequence

from dgr_lightning.models.plain_text import PlainTextEncoder
from dgr_lightning.models.thinking import Format


class TargetParts:
    """Finds trace and answer in the ids of a target.

    A mark that begins with a control token is found by its ids: text that spells it out has others. A mark that is ordinary
    text is found in the text, since its last token may hold the line breaks after it, too (`>\\n\\n` is one of Qwen's).
    """

    def __init__(self, text: PlainTextEncoder, format_: Format, open_ids: Sequence[int], close_ids: Sequence[int]) -> None:
        """Takes what a chat is made of.

        Args:
            text: of the tokenizer.
            format_: of its turns; without thinking there are no spans to find.
            open_ids: of the opening mark, as far as a target holds it: none where the prompt does.
            close_ids: of the closing mark alone.
        """
        self._text, self._format = text, format_
        self._open_ids, self._close_ids = open_ids, list(close_ids)

    @property
    def marks_are_text(self) -> bool:
        """Whether the marks are made of ordinary tokens alone."""
        return self._format.thinks and not self._text.is_control(self._close_ids[0])

    def spans(self, ids: Sequence[int]) -> tuple[range, range]:
        """Returns the positions of trace and answer in a target without its end token, white space at their ends left out.

        Raises:
            ValueError: there is no closing mark.
        """
        found = None if self.marks_are_text else self._by_ids(ids)
        trace, answer = found or self._by_text(ids)
        inner = self._text.without_white_space
        return inner(ids, trace.start, trace.stop), inner(ids, answer.start, answer.stop)

    def _by_ids(self, ids: Sequence[int]) -> tuple[range, range] | None:
        size = len(self._close_ids)
        for close, id_ in enumerate(ids):
            if id_ == self._close_ids[0] and list(ids[close : close + size]) == self._close_ids:
                return range(len(self._open_ids), close), range(close + size, len(ids))
        return None

    def _by_text(self, ids: Sequence[int]) -> tuple[range, range]:
        text, open_mark, close_mark = self._text.decode(ids), *self._format.marks
        opened = bool(self._open_ids) and text.lstrip().startswith(open_mark)
        begin = text.index(open_mark) + len(open_mark) if opened else 0
        close = text.find(close_mark, begin)
        if close < 0:
            raise ValueError("no closing mark: not the ids of a target")
        within = self._text.tokens_within
        return within(ids, begin, close), within(ids, close + len(close_mark), len(text))
