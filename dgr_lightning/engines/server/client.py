"""The HTTP side of `engines.server`: requests to one OpenAI-compatible server, so many at once, with patience.

An asyncio loop in a thread of its own keeps requests going while the caller does other things; a request that is cancelled
closes its connection at once, by which servers notice that nobody waits for it any more. What is passing (no connection, a
time-out, 408, 409, 429, 5xx) is tried again after ever longer pauses with jitter (Brooker, "Exponential Backoff And Jitter",
AWS Architecture Blog, 2015), or as late as the server's Retry-After asks for, within the time-out of a request.
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
from dgr_lightning.engines.server.url import KEY_VARIABLE, check_address
from dgr_lightning.errors import UserError

T = TypeVar("T")

# Seconds: six times again are two minutes, in which a server with a model of moderate size is up again.
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
_CONNECT_SECONDS = 20.0
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
# Characters: parts of a prompt as long as this do not get into a message; a server's words are cut to the other.
_HIDDEN_LENGTH, _WORDS_LENGTH = 16, 300


class Rejected(Exception):
    """The server will not do this, now or later.

    Attributes:
        status: the answer's HTTP status.
    """

    def __init__(self, status: int, words: str) -> None:
        """Takes the status and what the server said, which may repeat what it was sent and is kept out of the message."""
        super().__init__(f"status {status}")
        self.status, self._words = status, words

    def said(self, prompt: str) -> str:
        """Returns status and words, in one line, cut, without anything that they repeat of a prompt or of token ids."""
        words = _without(_one_line(self._words)[:2000], _one_line(prompt))
        if len(words) > _WORDS_LENGTH:
            words = words[: _WORDS_LENGTH - 1] + "…"
        return f"{self}, {words}" if words else str(self)


class Unreachable(RuntimeError):
    """A request failed for a passing reason, each time that it was sent."""


class Unusable(Exception):
    """An answer that is not what was asked for, through a fault that may pass; its text is the reason, without any output."""


class Endpoint:
    """A server under one address."""

    def __init__(self, url: str, num_slots: int, timeout_seconds: float, retries: int) -> None:
        """Connects to nothing yet. The key, if there is one, comes from the environment variable `OPENAI_API_KEY`.

        Args:
            url: such as http://127.0.0.1:8000/v1.
            num_slots: requests under way at once at most; one that waits to be sent again is under way.
            timeout_seconds: what one request may take, each time that it is sent, its answer included.
            retries: times that it is sent again.

        Raises:
            UserError: an address or a key that cannot be one.
        """
        self.url = check_address(url)
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UserError(f"The environment variable {KEY_VARIABLE} holds characters that no key has; set it anew.")
        self._timeout_seconds, self._retries = timeout_seconds, retries
        self._slots = asyncio.Semaphore(num_slots)
        self._jitter = random.Random()
        self._quiet_until = 0.0
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
            # How long an answer takes is limited in `_send`, as a whole.
            timeout=httpx2.Timeout(None, connect=min(_CONNECT_SECONDS, timeout_seconds)),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
            # No proxy of the environment stands between this machine and itself.
            trust_env=not _is_loopback(self.url),
        )
        self._loop = asyncio.new_event_loop()
        # A daemon, so that an interrupted process ends although nobody closed this.
        self._thread = Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    def get(self, path: str, read: Callable[[Any], T]) -> Future[T]:
        """Asks for a path; see `post`."""
        return self._submit("GET", path, None, read)

    def post(self, path: str, body: Callable[[], dict[str, Any]], read: Callable[[Any], T]) -> Future[T]:
        """Sends JSON and has the answer read.

        Args:
            path: below the address, such as /completions.
            body: makes what is sent; called when it is this request's turn, in the thread of the loop.
            read: makes the result of the answer's JSON, in the thread of the loop. The request is sent again where it raises
                `Unusable`, or anything that comes of JSON of another shape.

        Returns:
            The result to be, which may be cancelled. It fails with `Rejected`, `Unreachable`, or `UserError` where key or path
            are wrong.
        """
        return self._submit("POST", path, body, read)

    def close(self) -> None:
        """Cancels what is under way, closes the connections and ends the thread."""
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
        await self._client.aclose()

    def _submit(self, method: str, path: str, body: Callable[[], dict[str, Any]] | None, read: Callable[[Any], T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(self._insist(method, path, body, read), self._loop)

    async def _insist(self, method: str, path: str, body: Callable[[], dict[str, Any]] | None, read: Callable[[Any], T]) -> T:
        """Sends a request until it is answered, `retries` times again at most."""
        async with self._slots:
            content = None if body is None else json.dumps(body()).encode()
            begun = time.monotonic()
            for num_sent in range(1, self._retries + 2):
                asked_pause = 0.0
                try:
                    response = await self._send(method, path, content)
                    if response.status_code not in _PASSING and response.status_code < 500:
                        return self._read(response, path, read)
                    failure, asked_pause = _named(response.status_code), _retry_after(response)
                except TimeoutError:
                    failure = (
                        f"no answer within engine.timeout_seconds={self._timeout_seconds:g} (where answers take longer, raise "
                        "it or lower engine.batch_size)"
                    )
                except httpx2.RequestError as error:
                    failure = self._without_key(f"{type(error).__name__} {error}".strip())[:200]
                except Unusable as error:
                    failure = str(error)
                if num_sent <= self._retries:
                    self._tell(failure)
                    await asyncio.sleep(max(self._pause(num_sent), min(asked_pause, self._timeout_seconds)))
            seconds = time.monotonic() - begun
            raise Unreachable(f"The server at {self.url} failed {num_sent} times in {seconds:.0f} s, at last with: {failure}.")

    async def _send(self, method: str, path: str, content: bytes | None) -> httpx2.Response:
        headers = {"Content-Type": "application/json"} if content is not None else None
        async with asyncio.timeout(self._timeout_seconds):
            return await self._client.request(method, self.url + path, content=content, headers=headers)

    def _read(self, response: httpx2.Response, path: str, read: Callable[[Any], T]) -> T:
        """Returns what `read` makes of an answer, or raises what its status means."""
        status = response.status_code
        if response.is_success:
            try:
                return read(response.json())
            except (ValueError, LookupError, TypeError, AttributeError):
                raise Unusable("an answer that is not JSON of the OpenAI interface") from None
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            state = "the key that is set was refused" if self._key else "none is set"
            raise UserError(
                f"The server at {self.url} wants another key ({_named(status)}): it is read from the environment variable "
                f"{KEY_VARIABLE}; {state}."
            )
        if status == HTTPStatus.NOT_FOUND or response.is_redirect:
            raise UserError(
                f"The server at {self.url} has no {path}, or no model of that name ({_named(status)}). The path of engine.url "
                "usually ends in /v1; engine.served_model=<name> has to be a name that the server gives its model."
            )
        raise Rejected(status, self._without_key(_words(response)))

    def _pause(self, num_sent: int) -> float:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (num_sent - 1))
        return longest * self._jitter.uniform(0.75, 1.25)

    def _tell(self, failure: str) -> None:
        """Says that the server fails, once a minute at most: a server that limits its rate fails often and is well."""
        if time.monotonic() > self._quiet_until:
            self._quiet_until = time.monotonic() + 60
            say(escape(f"The server at {self.url} fails ({failure}); trying again, {self._retries} times at most."))

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text


def _words(response: httpx2.Response) -> str:
    """Returns what a server says about a request that it will not do; nothing where its answer is of no known shape."""
    try:
        answer = response.json()
    except ValueError:
        return ""
    # OpenAI and vLLM: {"error": {"message": …}}; SGLang: {"message": …}; TGI: {"error": …}; FastAPI: {"detail": …}.
    for key in ("error", "message", "detail"):
        if isinstance(answer, dict) and key in answer:
            answer = answer[key]
    # FastAPI's own complaints have what was sent under "input", which is left out.
    complaints = answer if isinstance(answer, list) else [answer]
    return "; ".join(
        one if isinstance(one, str) else f"{one.get('loc')}: {one.get('msg')}"
        for one in complaints
        if isinstance(one, (str, dict))
    )


def _one_line(text: str) -> str:
    """Returns text without line breaks, those included that are spelt out in somebody's JSON."""
    return " ".join(text.replace("\\n", " ").split())


def _without(words: str, prompt: str) -> str:
    """Returns words in which lists of numbers, and whatever they have in common with a prompt, are replaced by dots."""
    words = re.sub(r"\d+(?:\s*,\s*\d+){2,}", "…", words)
    width = min(_HIDDEN_LENGTH, len(prompt)) or 1
    pieces = {prompt[start : start + width] for start in range(len(prompt) - width + 1)}
    shown, hidden_to = "", 0
    for place, letter in enumerate(words):
        if words[place : place + width] in pieces:
            hidden_to = place + width
        if place >= hidden_to:
            shown += letter
        elif not shown.endswith("…"):
            shown += "…"
    return shown


def _retry_after(response: httpx2.Response) -> float:
    """Returns the seconds after which a server wants to be asked again; 0 where it does not say (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After", "")
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _named(status: int) -> str:
    """Returns a status with the name that the standard gives it; what a server calls it may hold anything."""
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
