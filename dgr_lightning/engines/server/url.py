"""Checks the URL of a server before anything is written: `engine.url` is saved in a run's config.yaml."""

from __future__ import annotations

from urllib.parse import urlsplit

from dgr_lightning.errors import UserError

KEY_VARIABLE = "OPENAI_API_KEY"


_EXAMPLE = "http://127.0.0.1:8000/v1"


def require_url(url: str | None) -> str:
    """Returns `engine.url` as `check_url` does.

    Raises:
        UserError: as `check_url`, or there is none.
    """
    if url is None:
        raise UserError(f"engine=server: name the server with engine.url=<URL>, such as engine.url={_EXAMPLE}.")
    return check_url(url)


def check_url(url: str, key: str = "engine.url", key_variable: str = KEY_VARIABLE) -> str:
    """Returns the URL without a trailing slash.

    Args:
        url: of an OpenAI-compatible server.
        key: the config key that holds it.
        key_variable: the environment variable that takes an access key.

    Raises:
        UserError: it is no http(s) URL, or it holds a user, a password, a query or a fragment, where keys are put by mistake.
        The
            message does not repeat such a URL.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise UserError(f"{key} is no URL; write one such as {key}={_EXAMPLE}.") from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UserError(
            f"{key} holds a user, password, query or fragment, and a run's config.yaml would keep it. Put the key into the "
            f"environment variable {key_variable}, and write the URL alone, such as {key}={_EXAMPLE}."
        )
    if parts.scheme not in ("http", "https") or not host:
        raise UserError(f"{key}={url} is no http:// or https:// URL; write one such as {key}={_EXAMPLE}.")
    return url.rstrip("/")
