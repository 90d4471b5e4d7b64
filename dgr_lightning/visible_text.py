r"""Text that others wrote, made safe to show: characters that a terminal obeys or that turn the reading order become visible.

An ESC in an id of a data set can set a terminal's title, move its cursor or, in some, put text on the clipboard; a carriage
return or a bidirectional override makes a line read as another one; half of a surrogate pair cannot be printed at all. Each is
shown as its escape, such as \x1b or \u202e. Access keys, which libraries quote in their messages, are left out of them.
"""

from __future__ import annotations

import os
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


KEY_BEGINNINGS = r"hf_|sk-|gh[pousr]_|glpat-|xox[a-z]-|AKIA|AIza"
"""How access keys of the hub, model servers, GitHub and others begin, as a part of a pattern."""

_KEY_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY")
_SHORTEST_KEY = 12
_SECRETS = re.compile(
    r"(?P<user>://)[^\s/@]+@"  # user and password of an address
    r"|(?P<name>[?&](?:access_?|api_?|auth_?)?(?:token|key|secret|password|signature|sig)=)[^\s&#'\")]+"
    rf"|(?P<kind>\b(?:{KEY_BEGINNINGS}))[\w-]{{16,}}",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Returns a text, such as a library's message about a failed request, without the access keys that stand in it.

    Those are this process's own keys (`HF_TOKEN` and the like), passwords and keys in addresses, and what is written like a
    key of the hub or of a model server.
    """
    for variable in _KEY_VARIABLES:
        key = os.environ.get(variable, "")
        if len(key) >= _SHORTEST_KEY:
            text = text.replace(key, f"<{variable}>")
    return _SECRETS.sub(lambda found: f"{found['user'] or found['name'] or found['kind']}…{'@' if found['user'] else ''}", text)
