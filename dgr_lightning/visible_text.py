r"""Text that others wrote, made safe to show: characters that a terminal obeys or that turn the reading order become visible.

An ESC in an id of a data set can set a terminal's title, move its cursor or, in some, put text on the clipboard; a carriage
return or a bidirectional override makes a line read as another one; half of a surrogate pair cannot be printed at all. Each is
shown as its escape, such as \x1b or \u202e.
"""

from __future__ import annotations

import re

# C0 and C1 without tab and line feed, DEL; separators that some terminals take as line ends; marks and overrides of the reading
# order (Unicode's UAX 9; the list of CVE-2021-42574); surrogates.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Returns a text with every such character as its escape; tabs and line feeds stay."""
    return _OBEYED.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
