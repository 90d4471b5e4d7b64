"""The layout of a card, the `README.md` of a model or dataset folder that may be uploaded to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


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
        title: heading of the card.
        text: description of the content, Markdown.
        facts: name → value, shown as a table.
        settings: the config keys that determine the content, shown as YAML.
        sections: heading → Markdown of further sections.
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
