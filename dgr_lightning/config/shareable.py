"""The second line of defence for what leaves the machine: values that give a place or a secret away.

The first line is the key itself (`private` in `config/setting.py`). But a name, a revision or a column may be given as a path
as well, so whatever hands settings on looks at their values too.
"""

from __future__ import annotations

import re
from typing import Any

from dgr_lightning.visible_text import KEY_BEGINNINGS

WITHHELD = "withheld"
"""Stands in the place of a value that must not leave the machine."""

_LONGEST = 200  # characters: names and modules are shorter, prompts and templates mostly longer
_TELLING = re.compile(
    r"""
      ^\s*(?:~|/|\\|\.{1,2}[/\\])                                     # a path
    | (?:^|[^\w<])(?:~|[A-Za-z]:)?[/\\](?:[\w.~@+-]+[/\\])             # a path inside of a text
    | ^\s*[A-Za-z]:[/\\]                                              # a path with a drive
    | :// | ^\s*localhost\b | :\d{2,5}$                                # an address
    | (?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]) | \[[0-9a-fA-F]*:[0-9a-fA-F:]+\]  # an IP address
    | [\w.+-]+@[\w-]+\.\w                                             # a mail address
    """
    rf"| (?:{KEY_BEGINNINGS})[\w-]{{12,}}",
    re.VERBOSE,
)


def shareable(value: Any) -> Any:
    """Returns a value of the config, nested or not, with `WITHHELD` for every text in it that gives something away.

    That is a path, an address, a mail address, an access key, a text of several lines, or a long one.
    """
    if isinstance(value, dict):
        return {shareable(name): shareable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shareable(item) for item in value]
    if isinstance(value, str) and (len(value) > _LONGEST or "\n" in value or _TELLING.search(value)):
        return WITHHELD
    return value
