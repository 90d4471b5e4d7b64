"""The layout of a card, the `README.md` of a model or dataset folder that may be uploaded to the Hugging Face hub.

Names of models, sets and checks are what users and data sets chose. They are shown as they are written: none of them makes
markup, closes a code block, or adds to the YAML header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from dgr_lightning.visible_text import visible

# What makes a code span, a link, a tag, an entity, a table cell or a heading in the hub's Markdown.
_MARKUP = re.compile(r"([\\`\[\]<>|&#])")


def compose_card(
    front: Mapping[str, Any],
    title: str,
    text: str,
    facts: Mapping[str, str],
    settings: Mapping[str, Any],
    sections: Mapping[str, str] | None = None,
) -> str:
    """Returns a card: the hub's YAML header, then how the folder was made, in words and figures.

    Args:
        front: the YAML header.
        title: heading of the card, plain text.
        text: description of the content, Markdown: names in it have been through `plain`.
        facts: name → value, shown as a table; plain text.
        settings: the config keys that determine the content, shown as YAML.
        sections: heading, plain text → Markdown of further sections.
    """
    rows = [f"| {plain(name)} | {plain(value)} |" for name, value in facts.items()]
    parts = [
        f"---\n{_yaml(front)}\n---",
        f"# {plain(title)}",
        text,
        "\n".join(["| | |", "| --- | --- |", *rows]),
        "## Settings",
        code_block("yaml", _yaml(settings)),
    ]
    for heading, content in (sections or {}).items():
        parts += [f"## {plain(heading)}", content]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Returns a text as Markdown that shows just that text, on one line."""
    return _MARKUP.sub(r"\\\1", visible(" ".join(text.split())))


def code_block(language: str, text: str) -> str:
    """Returns a text as a block of code, fenced by more backticks than it has anywhere in a row."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{visible(text)}\n{fence}"


class _OneLine(yaml.SafeDumper):
    """Writes a text of several lines in quotes on one, so that no line of it ends the header or the block of code."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\n" in text else None)


_OneLine.add_representer(str, _OneLine.represent_text)


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.dump(dict(values), Dumper=_OneLine, sort_keys=False, width=10**9).strip()
