"""HTTP client of one OpenAI-compatible server: a limited number of concurrent requests, each with retries.

An asyncio loop in a separate thread serves requests while the caller does other things; cancelling a request closes its
connection at once, so that the server stops working on it. Transient failures (no connection, a time-out, 408, 409, 429, 5xx)
are retried with exponential backoff and jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), or
after the server's Retry-After, which is cut to the time-out of a request.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import random
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from http import HTTPStatus
from ipaddress import ip_address
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
from rich.markup import escape

from dgr_lightning.console import say
from dgr_lightning.engines.server.url import KEY_VARIABLE
from dgr_lightning.errors import UserError, one_line

T = TypeVar("T")

# Seconds. Six retries take two minutes, enough for a server with a model of moderate size to restart.
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
_CONNECT_SECONDS = 20.0
_TRANSIENT = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
# Characters. Parts of a prompt of the first length are kept out of messages; the server's reason is cut to the second.
_HIDDEN_LENGTH, _REASON_LENGTH = 16, 300


class Rejected(Exception):
    """The server refuses a request, and would refuse it again.

    Attributes:
        status: HTTP status of the answer.
    """

    def __init__(self, status: int, reason: str) -> None:
        """Keeps the server's reason, which may repeat what it was sent, out of the exception's own message."""
        super().__init__(f"status {status}")
        self.status, self._reason = status, reason

    def reason(self, prompt: str) -> str:
        """Returns status and the server's reason in one line, cut, without anything that it repeats of prompt or token ids."""
        reason = _redacted(_unbroken(self._reason)[:2000], _unbroken(prompt))
        if len(reason) > _REASON_LENGTH:
            reason = reason[: _REASON_LENGTH - 1] + "…"
        return f"{self}, {reason}" if reason else str(self)


class Unreachable(RuntimeError):
    """A request failed for a transient reason, each time that it was sent."""


class UnusableAnswer(Exception):
    """An answer that is not what was requested, because of a fault that may be transient; its text holds no output."""


class Client:
    """The connection to a server.

    Attributes:
        url: of the server.
    """

    def __init__(
        self,
        url: str,
        max_concurrent: int,
        timeout_seconds: float,
        retries: int,
        *,
        key_variable: str = KEY_VARIABLE,
        section: str = "engine",
    ) -> None:
        """Does not connect yet. The API key, if any, comes from an environment variable.

        Args:
            url: as `check_url` returns it.
            max_concurrent: largest number of concurrent requests; one that waits for its retry counts.
            timeout_seconds: limit of a request, its answer included, each time that it is sent.
            retries: how often a request is sent again.
            key_variable: the variable with the key.
            section: of the config, which has url, served_model, batch_size and timeout_seconds: what messages name.

        Raises:
            UserError: the key holds characters that no key has.
        """
        self.url = url
        self._section, self._key_variable = section, key_variable
        self._key = os.environ.get(key_variable, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UserError(f"The environment variable {key_variable} holds characters that no key has; set it again.")
        self._timeout_seconds, self._retries = timeout_seconds, retries
        self._slots = asyncio.Semaphore(max_concurrent)
        self._jitter = random.Random()
        self._quiet_until = 0.0
        self._http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
            # `_send` limits the time of a whole answer.
            timeout=httpx2.Timeout(None, connect=min(_CONNECT_SECONDS, timeout_seconds)),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
            # The environment's proxy is not used for a server on this machine.
            trust_env=not _is_loopback(self.url),
        )
        self._loop = asyncio.new_event_loop()
        # A daemon, so that an interrupted process ends even if the client was not closed.
        self._thread = Thread(target=self._loop.run_forever, name="server-client", daemon=True)
        self._thread.start()

    def get(self, path: str, read: Callable[[Any], T]) -> Future[T]:
        """Sends a GET request; see `post`."""
        return self._submit("GET", path, None, read)

    def post(self, path: str, body: Callable[[], dict[str, Any]], read: Callable[[Any], T]) -> Future[T]:
        """Sends JSON and reads the answer.

        Args:
            path: below the URL, such as /completions.
            body: makes the JSON to send; called when it is this request's turn, in the thread of the loop.
            read: makes the result from the answer's JSON, in the thread of the loop. The request is sent again where it raises
                `UnusableAnswer`, or anything that JSON of another shape leads to.

        Returns:
            A future of the result, which may be cancelled. It fails with `Rejected`, `Unreachable`, or `UserError` where key or
            path are wrong.
        """
        return self._submit("POST", path, body, read)

    def close(self) -> None:
        """Cancels all requests, closes the connections and ends the thread."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    def _submit(self, method: str, path: str, body: Callable[[], dict[str, Any]] | None, read: Callable[[Any], T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(self._send_with_retries(method, path, body, read), self._loop)

    async def _send_with_retries(
        self, method: str, path: str, body: Callable[[], dict[str, Any]] | None, read: Callable[[Any], T]
    ) -> T:
        """Sends a request until it is answered, with at most `retries` retries."""
        async with self._slots:
            content = None if body is None else json.dumps(body()).encode()
            begun = time.monotonic()
            for num_sent in range(1, self._retries + 2):
                retry_after = 0.0
                try:
                    response = await self._send(method, path, content)
                    if response.status_code not in _TRANSIENT and response.status_code < 500:
                        return self._read(response, path, read)
                    failure, retry_after = _status_name(response.status_code), _retry_after(response)
                except TimeoutError:
                    failure = (
                        f"no answer within {self._section}.timeout_seconds={self._timeout_seconds:g} (where answers take "
                        f"longer, raise it or lower {self._section}.batch_size)"
                    )
                except httpx2.RequestError as error:
                    failure = self._without_key(f"{type(error).__name__} {error}".strip())[:200]
                except UnusableAnswer as error:
                    failure = str(error)
                if num_sent <= self._retries:
                    self._report(failure)
                    await asyncio.sleep(max(self._backoff(num_sent), min(retry_after, self._timeout_seconds)))
            seconds = time.monotonic() - begun
            raise Unreachable(f"The server at {self.url} failed {num_sent} times in {seconds:.0f} s, at last with: {failure}.")

    async def _send(self, method: str, path: str, content: bytes | None) -> httpx2.Response:
        headers = {"Content-Type": "application/json"} if content is not None else None
        async with asyncio.timeout(self._timeout_seconds):
            return await self._http.request(method, self.url + path, content=content, headers=headers)

    def _read(self, response: httpx2.Response, path: str, read: Callable[[Any], T]) -> T:
        """Returns the result of an answer, or raises the exception that its status means."""
        status = response.status_code
        if response.is_success:
            try:
                return read(response.json())
            except (ValueError, LookupError, TypeError, AttributeError):
                raise UnusableAnswer("an answer that is not JSON of the OpenAI interface") from None
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            state = "the key that is set was refused" if self._key else "none is set"
            raise UserError(
                f"The server at {self.url} requires another key ({_status_name(status)}). The key is read from the environment "
                f"variable {self._key_variable}; {state}."
            )
        if status == HTTPStatus.NOT_FOUND or response.is_redirect:
            raise UserError(
                f"The server at {self.url} has no {path}, or no model of that name ({_status_name(status)}). The path of "
                f"{self._section}.url usually ends in /v1; {self._section}.served_model=<name> has to be a name that the "
                "server gives its model."
            )
        raise Rejected(status, self._without_key(_reason(response)))

    def _backoff(self, num_sent: int) -> float:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (num_sent - 1))
        return longest * self._jitter.uniform(0.75, 1.25)

    def _report(self, failure: str) -> None:
        """Reports a failure, at most once a minute: a healthy server that limits its rate fails often."""
        if time.monotonic() > self._quiet_until:
            self._quiet_until = time.monotonic() + 60
            say(escape(f"The server at {self.url} fails ({failure}); trying again, at most {self._retries} times."))

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text


def _reason(response: httpx2.Response) -> str:
    """Returns a server's reason for refusing a request; an empty string where its answer has an unknown shape."""
    try:
        answer = response.json()
    except ValueError:
        return ""
    # OpenAI and vLLM: {"error": {"message": …}}; SGLang: {"message": …}; TGI: {"error": …}; FastAPI: {"detail": …}.
    for key in ("error", "message", "detail"):
        if isinstance(answer, dict) and key in answer:
            answer = answer[key]
    # FastAPI's validation errors repeat the request under "input", which is left out.
    errors = answer if isinstance(answer, list) else [answer]
    return "; ".join(
        one if isinstance(one, str) else f"{one.get('loc')}: {one.get('msg')}" for one in errors if isinstance(one, (str, dict))
    )


def _unbroken(text: str) -> str:
    """Returns text in one line, also where a line break is escaped as in JSON."""
    return one_line(text.replace("\\n", " "))


def _redacted(text: str, prompt: str) -> str:
    """Returns a text in which lists of numbers, and all that it has in common with a prompt, are replaced by dots."""
    text = re.sub(r"\d+(?:\s*,\s*\d+){2,}", "…", text)
    width = min(_HIDDEN_LENGTH, len(prompt)) or 1
    pieces = {prompt[start : start + width] for start in range(len(prompt) - width + 1)}
    shown, hidden_to = "", 0
    for index, character in enumerate(text):
        if text[index : index + width] in pieces:
            hidden_to = index + width
        if index >= hidden_to:
            shown += character
        elif not shown.endswith("…"):
            shown += "…"
    return shown


def _retry_after(response: httpx2.Response) -> float:
    """Returns the seconds of an answer's Retry-After; 0 where it has none (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After", "")
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _status_name(status: int) -> str:
    """Returns a status with its standard name: the server's own phrase may hold anything."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
