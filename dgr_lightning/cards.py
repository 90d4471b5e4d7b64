"""The frame of a card, `README.md` of a folder that may go to the Hugging Face hub: for models and for datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def compose(
    front: Mapping[str, Any],
    title: str,
    text: str,
    facts: Mapping[str, str],
    settings: Mapping[str, Any],
    sections: Mapping[str, str] | None = None,
) -> str:
    """Returns a card: the hub's YAML header, and how the folder came to be, in words and figures.

    Args:
        front: the header, which the hub reads.
        title: a line.
        text: what the folder holds, Markdown.
        facts: rows of a table.
        settings: all keys that made it, shown as YAML.
        sections: title → Markdown of whatever follows.
    """
    parts = [
        f"---\n{_yaml(front)}\n---",
        f"# {title}",
        text,
        "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items())]),
        "## Settings",
        f"```yaml\n{_yaml(settings)}\n```",
    ]
    for heading, content in (sections or {}).items():
        parts += [f"## {heading}", content]
    return "\n\n".join(parts) + "\n"


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False).strip()
