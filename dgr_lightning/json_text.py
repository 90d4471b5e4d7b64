"""JSON that others wrote, read so that whatever is wrong with it is one sentence.

`json.loads` fails on such text in three ways besides its own error: a RecursionError where it is nested too deeply, a bare
ValueError where a number has thousands of digits, and not at all where a string holds half of a surrogate pair, with which no
file can be written later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

# Only such an escape can become a lone surrogate: text read as UTF-8 has none.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class BadJson(ValueError):
    """Text that is not JSON, or that holds what cannot be stored; the message says why, without a full stop."""


def parse_json(text: str, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """Returns the value of a JSON text.

    Args:
        text: the whole text.
        parse_constant: called for NaN and the infinities, as in `json.loads`.

    Raises:
        BadJson: it is not JSON, is nested too deeply, holds a number of thousands of digits, or half of a surrogate pair.
    """
    try:
        value = json.loads(text, parse_constant=parse_constant)
    except (ValueError, RecursionError) as error:
        raise BadJson(why_bad(error)) from error
    check_surrogates(text, value)
    return value


def why_bad(error: ValueError | RecursionError) -> str:
    """Returns what is wrong with a text that `json` failed on."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, RecursionError):
        return "lists and objects nested too deeply"
    return "a whole number of thousands of digits; write it as text, in quotes"


def check_surrogates(text: str, value: Any) -> None:
    r"""Checks that no string of a value is half of a surrogate pair.

    Args:
        text: the JSON of the value; one without a \ud… escape is not looked at further.
        value: what it was parsed to.

    Raises:
        BadJson: a string is.
    """
    if _SURROGATE.search(text) is None:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise BadJson(f"{half} is half of a surrogate pair, and no character; write the whole pair or the character") from error
