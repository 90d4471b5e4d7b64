"""Checks the address of a server before anything is written: `engine.url` is saved in a run's config.yaml."""

from __future__ import annotations

from urllib.parse import urlsplit

from dgr_lightning.errors import UserError

KEY_VARIABLE = "OPENAI_API_KEY"


def check_address(url: str) -> str:
    """Returns the address without a slash behind it.

    Raises:
        UserError: no http(s) address; or one with a user, a password, a query or a fragment, where keys are put by mistake. The
            message does not repeat such an address.
    """
    example = "engine.url=http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise UserError(f"engine.url: that is no address; write one such as {example}.") from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UserError(
            "engine.url: no user, password, query or fragment belongs in it, since a run's config.yaml keeps it; put the key "
            f"into the environment variable {KEY_VARIABLE}, and write the address alone, such as {example}."
        )
    if parts.scheme not in ("http", "https") or not host:
        raise UserError(f"engine.url={url}: that is no http:// or https:// address; write one such as {example}.")
    return url.rstrip("/")
