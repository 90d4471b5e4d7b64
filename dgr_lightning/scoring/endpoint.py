"""What judges behind an OpenAI-compatible chat endpoint share: asking, many texts at once, and what becomes of failures.

A server that cannot be used (no answer, a wrong key, no such model) is refused before anything is generated. After that no
failure ends a run: a text that the server cannot be asked about has no verdict, which is counted, and where it stops answering
altogether the rest is not asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from dgr_lightning.config import Config, JudgeConfig
from dgr_lightning.console import ignore, say
from dgr_lightning.engines.server.url import check_url
from dgr_lightning.errors import UserError
from dgr_lightning.scoring.cached_judge import Costly
from dgr_lightning.scoring.judge import FAILED, TRUNCATED, UNPARSABLE, Exchange, Verdict

if TYPE_CHECKING:
    from concurrent.futures import Future

    from dgr_lightning.engines.server.client import Client

ENDPOINT_VERSION = 1
"""Part of `content`: raise it when the same answers of a server would be read differently."""

_LENGTH = "length"
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Answer:
    """What a server wrote about a text, and whether it ran into the limit of tokens."""

    text: str
    cut: bool


class EndpointJudge(Costly):
    """A judge behind an endpoint. Subclasses say what is asked of a text, and how the answer is read."""

    kind: str

    def __init__(self, cfg: JudgeConfig) -> None:
        """Does not connect yet.

        Raises:
            UserError: the config names no server or no model, or what it names is no URL or no variable.
        """
        if cfg.url is None or cfg.served_model is None:
            raise UserError(
                f"judge={self.kind}: name the server and its model with judge.url=<URL> judge.served_model=<name>, such as "
                "judge.url=http://127.0.0.1:8000/v1."
            )
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", cfg.api_key_variable):
            raise UserError(  # it may be a key, so it is not repeated
                "judge.api_key_variable is no name of an environment variable. Put the key into one, such as OPENAI_API_KEY, "
                "and write its name here."
            )
        self._url = check_url(cfg.url, "judge.url", cfg.api_key_variable)
        self._cfg, self.model = cfg, cfg.served_model
        self._client: Client | None = None

    @classmethod
    def of(cls, cfg: Config) -> Self:
        """Returns the judge that `cfg.judge` describes."""
        return cls(cfg.judge)

    @property
    def name(self) -> str:
        """The kind of judge with its model: another model is another measure."""
        return f"{self.kind}:{self.model}"

    @property
    def asks(self) -> Any:
        """What the judge's question depends on beside model and limit of tokens, JSON-able."""
        raise NotImplementedError

    @property
    def content(self) -> Any:
        """Everything that verdicts depend on; a server may still change what is behind a model's name."""
        return [self.kind, ENDPOINT_VERSION, self.model, self._cfg.max_new_tokens, self.asks]

    def messages(self, exchange: Exchange) -> Messages:
        """Returns the conversation that asks about a text."""
        raise NotImplementedError

    def read(self, answer: str) -> Verdict | None:
        """Returns what an answer says; None where it says nothing in the format that was asked for."""
        raise NotImplementedError

    def check(self) -> None:
        """Asks the server one harmless question.

        Raises:
            UserError: it does not answer, refuses the key, or has no such model.
        """
        try:
            # One try: whoever has written a wrong address should not wait for retries.
            client = self._connect(retries=0)
            client.post(*self._request(Exchange("What is two plus two?", "Four."), max_tokens=1)).result()
        except UserError:
            raise
        except Exception as error:
            reason = error.reason("") if hasattr(error, "reason") else str(error)
            raise UserError(f"judge={self.kind}: the server at {self._url} cannot be asked: {reason}") from error
        finally:
            self.close()

    def verdicts(self, exchanges: Sequence[Exchange], advance: Callable[[int], object] = ignore) -> list[Verdict]:
        """Returns a verdict an exchange, in order; `judge.batch_size` of them are asked about at once."""
        client = self._client = self._client or self._connect(self._cfg.retries)
        found: list[Verdict] = [Verdict(error=FAILED)] * len(exchanges)
        futures = {client.post(*self._request(exchange)): index for index, exchange in enumerate(exchanges)}
        failures, in_a_row, most = 0, 0, 2 * self._cfg.batch_size
        for future in as_completed(futures):
            advance(1)
            if (answer := _answer(future)) is None:
                failures, in_a_row = failures + 1, in_a_row + 1
                if in_a_row == most:
                    say(f"[yellow]{self.kind}: the server has failed {most} times in a row; the rest is not asked[/]")
                    for other in futures:
                        other.cancel()
                continue
            in_a_row = 0
            verdict = self.read(answer.text)
            found[futures[future]] = verdict or Verdict(error=TRUNCATED if answer.cut else UNPARSABLE)
        if failures:
            say(
                f"[yellow]{self.kind}: {failures} of {len(exchanges)} texts have no verdict, because the server failed; they "
                "are left out of its rates[/]"
            )
        return found

    def close(self) -> None:
        """Closes the connections; a further batch opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connect(self, retries: int) -> Client:
        from dgr_lightning.engines.server.client import Client

        cfg = self._cfg
        self._client = Client(
            self._url, cfg.batch_size, cfg.timeout_seconds, retries, key_variable=cfg.api_key_variable, section="judge"
        )
        return self._client

    def _request(self, exchange: Exchange, max_tokens: int | None = None) -> tuple[str, Callable[[], dict[str, Any]], Any]:
        def body() -> dict[str, Any]:
            limit = max_tokens or self._cfg.max_new_tokens
            return {"model": self.model, "messages": self.messages(exchange), "temperature": 0, "max_tokens": limit}

        return "/chat/completions", body, _read


def _answer(future: Future[Answer]) -> Answer | None:
    """Returns the answer; None where there is none, for whatever reason: it may be a text that the template fails on."""
    if future.cancelled() or future.exception() is not None:
        return None
    return future.result()


def _read(answer: Mapping[str, Any]) -> Answer:
    choice = answer["choices"][0]
    # null where a filter of the server or the model's reasoning left nothing
    return Answer(choice["message"].get("content") or "", choice.get("finish_reason") == _LENGTH)
