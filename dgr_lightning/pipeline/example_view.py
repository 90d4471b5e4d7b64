"""An example shown token by token, as the model sees it in training."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.panel import Panel
from rich.text import Text

from dgr_lightning.console import SafeConsole, console
from dgr_lightning.example import BENIGN, Example
from dgr_lightning.files import write_text

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Chat


# A token is a few strokes for whoever reads and about 0.3 ms for whoever waits, and there are examples of 400,000.
_SHOWN_IN_FILE = 4000


def example_view(chat: Chat, example: Example, num_shown: int = 160, *, hide_text: bool = False) -> Panel:
    """Returns an example for the terminal, token by token; the target, which is trained on, is highlighted.

    Args:
        chat: tokenizer and template of the model.
        example: any example.
        num_shown: the most tokens that are shown of prompt and target each; the middle of a longer one is left out.
        hide_text: show control tokens alone, and only the number of tokens between them.
    """
    body = Text()
    for name, style, ids in (
        ("prompt, not trained on", "dim", chat.prompt_ids(example.prompt)),
        ("target, trained on", "bold green", chat.target_ids(example.trace, example.answer)),
    ):
        body.append(f"{name}: {len(ids)} tokens\n", "underline")
        half, tokens = num_shown // 2, _without_text(chat, ids) if hide_text else [_token(chat, id_) for id_ in ids]
        if len(tokens) > num_shown:
            tokens[half:-half] = [f" … {len(ids) - 2 * half} more … "]
        for token in tokens:
            body.append(token, style).append("│", "bright_black")
        body.append("\n")
    body.rstrip()
    return Panel(body, title=Text(f"{example.id}, as the model sees it"), title_align="left")


def show_examples(chat: Chat, examples: Sequence[Example], file: Path) -> None:
    """Shows examples token by token. Harmful text stays out of terminals and logs: it is in the file alone."""
    text = StringIO()
    on_file = SafeConsole(file=text, width=120)
    for example in examples:
        console.print(example_view(chat, example, hide_text=example.label != BENIGN))
        on_file.print(example_view(chat, example, num_shown=_SHOWN_IN_FILE))
    write_text(file, text.getvalue())


def _token(chat: Chat, id_: int) -> str:
    return chat.token_text(id_).replace("\n", "⏎")


def _without_text(chat: Chat, ids: Sequence[int]) -> list[str]:
    shown = []
    for is_control, group in groupby(ids, key=chat.is_control):
        run = list(group)
        shown += [_token(chat, id_) for id_ in run] if is_control else [f" {len(run)} of text "]
    return shown
