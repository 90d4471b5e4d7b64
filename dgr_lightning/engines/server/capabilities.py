"""How one server speaks OpenAI's completions interface: which model it has, what it takes, what its answers hold.

Servers differ, and some refuse a field that they do not know. What this one takes is found out by a few tiny requests:

- Fields of vLLM and SGLang (`stop_token_ids`, `skip_special_tokens`, `return_token_ids` …), else OpenAI's own alone. Those that
  only switch off what a server may do by itself (top-k, min-p, penalties) are among them.
- Token ids in the answer (vLLM, newer SGLang), else text in which control tokens must show. That is proven by having the server
  write each think mark, with a `logit_bias` that leaves it no choice, instead of trusting that it knew a field.
- Log-probabilities of a prompt as vLLM's `prompt_logprobs`, else as OpenAI's `echo` with `logprobs`, else none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from rich.markup import escape

from dgr_lightning.console import say
from dgr_lightning.engines.engine import LENGTH, STOP, Decoder, Sampling
from dgr_lightning.engines.server.client import Endpoint, Rejected, Unreachable, Unusable
from dgr_lightning.errors import UserError
from dgr_lightning.models.thinking import FORMATS

T = TypeVar("T")

_NEUTRAL: dict[str, Any] = {"presence_penalty": 0.0, "frequency_penalty": 0.0}
# A model's generation_config.json would otherwise have a server cut by its own top-k.
_EXTRAS: dict[str, Any] = {
    "skip_special_tokens": False,
    "spaces_between_special_tokens": False,
    "return_token_ids": True,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
_LOGPROBS: dict[str, dict[str, Any]] = {
    "prompt_logprobs": {"prompt_logprobs": 0},
    "echo": {"echo": True, "logprobs": 1},
}


@dataclass(frozen=True)
class Choice:
    """What is used of an answer.

    Attributes:
        text: as the server decoded it.
        token_ids: the output's tokens, a stop token included; None where the server does not tell them.
        finish_reason: `stop` or `length`.
        num_prompt: tokens of the prompt that the server counted; None where it does not tell.
    """

    text: str
    token_ids: list[int] | None
    finish_reason: str
    num_prompt: int | None


@dataclass(frozen=True)
class Dialect:
    """What a server was found to be and to take.

    Attributes:
        model: the name by which it is asked for.
        max_length: tokens of prompt and output together, where the server tells.
        takes_extras: whether it takes the fields of vLLM and SGLang.
        logprobs: how it gives log-probabilities of a prompt: `prompt_logprobs`, `echo`, or None.
    """

    model: str
    max_length: int | None
    takes_extras: bool = True
    logprobs: str | None = None

    def sampled(self, prompt_ids: Sequence[int], budget: int, sampling: Sampling, seed: int) -> dict[str, Any]:
        """Returns the request for a completion of at most `budget` tokens."""
        fields: dict[str, Any] = {
            "max_tokens": budget,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
        }
        if self.takes_extras:
            # Where there are stop tokens, ignore_eos stays off: SGLang would ignore them with it.
            fields |= {"stop_token_ids": list(sampling.stop_ids), "ignore_eos": not sampling.stop_ids}
        return self._body(prompt_ids, fields)

    def forced(self, prompt_ids: Sequence[int], token_id: int) -> dict[str, Any]:
        """Returns the request for one token, which can hardly be another than this."""
        return self._body(prompt_ids, {"max_tokens": 1, "temperature": 0.0, "logit_bias": {str(token_id): 100}})

    def scored(self, ids: Sequence[int]) -> dict[str, Any]:
        """Returns the request for the log-probabilities of `ids`; one token is written behind them, as servers want it."""
        assert self.logprobs is not None
        return self._body(ids, {"max_tokens": 1, "temperature": 0.0, **_LOGPROBS[self.logprobs]})

    def read_logprobs(self, answer: Any, ids: Sequence[int]) -> list[float]:
        """Returns the natural-log probability of every token of `ids`; that of the first, which has none, is 0.

        Raises:
            Unusable: they are not in the answer.
        """
        assert self.logprobs is not None
        try:
            return _READERS[self.logprobs](answer["choices"][0], ids)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Unusable("no log-probabilities of the prompt in the answer") from None

    def _body(self, prompt_ids: Sequence[int], fields: dict[str, Any]) -> dict[str, Any]:
        extras = _EXTRAS if self.takes_extras else {}
        return {"model": self.model, "prompt": list(prompt_ids), **_NEUTRAL, **extras, **fields}


def read_choice(answer: Any) -> Choice:
    """Returns what is used of a completion's answer.

    Raises:
        Unusable: the output was not finished.
    """
    choice = answer["choices"][0]
    text, token_ids, reason = choice["text"], choice.get("token_ids"), choice["finish_reason"]
    if reason not in (STOP, LENGTH):
        # A server that is being stopped, for one, hands out what it has as finished by "abort".
        raise Unusable(f"an output that ended neither by a stop token nor by its length, but by {reason!r:.40}")
    if not isinstance(text, str):
        raise TypeError
    num_prompt = (answer.get("usage") or {}).get("prompt_tokens")
    return Choice(text, None if token_ids is None else [int(id_) for id_ in token_ids], reason, num_prompt)


def find_dialect(endpoint: Endpoint, decoder: Decoder, encode: Callable[[str], list[int]], served_model: str | None) -> Dialect:
    """Finds out what a server is and takes, and proves that token ids and think marks pass unharmed.

    Raises:
        UserError: no server there, a key that it refuses, several models to choose from, another tokenizer, or something
            without which no prompt or no think mark passes.
    """
    where = f"The server at {endpoint.url}"
    dialect = Dialect(*_find_model(endpoint, where, served_model))
    marks = [mark for format_ in FORMATS.values() for mark in (format_.open_mark, format_.close_mark)]
    ids = list(dict.fromkeys(encode(mark)[0] for mark in marks))
    try:
        _prove(endpoint, dialect, decoder, ids, where)
    except Rejected:
        dialect = Dialect(dialect.model, dialect.max_length, takes_extras=False)
        try:
            _prove(endpoint, dialect, decoder, ids, where)
        except Rejected as error:
            raise UserError(
                f"{where} does not take a prompt of token ids at /completions, as vLLM, SGLang and llama.cpp do: "
                f"{error.said(decoder.decode(ids))}."
            ) from None
    for way in _LOGPROBS:
        scoring = Dialect(dialect.model, dialect.max_length, dialect.takes_extras, way)
        if _scores(endpoint, scoring, [*ids, *ids]):
            return scoring
    say(escape(f"{where} gives no log-probabilities of a prompt: NLL cannot be had from it."))
    return dialect


def _find_model(endpoint: Endpoint, where: str, wanted: str | None) -> tuple[str, int | None]:
    """Returns the name of the model, and the length of its context where the server tells it (vLLM, SGLang)."""

    def read(answer: Any) -> dict[str, int | None]:
        return {str(entry["id"]): entry.get("max_model_len") for entry in answer["data"]}

    try:
        listed = _at_start(endpoint.get("/models", read))
    except Rejected as error:
        raise UserError(f"{where} does not list its models at /models: {error.said('')}.") from None
    if wanted is None and len(listed) == 1:
        return next(iter(listed.items()))
    if wanted is None or wanted not in listed:
        problem = f"serves {len(listed)} models" if wanted is None else f"does not serve {wanted}"
        choices = " or ".join(f"engine.served_model={name}" for name in listed)
        raise UserError(f"{where} {problem}; write {choices or 'the engine.url of one that does'}.")
    return wanted, listed[wanted]


def _prove(endpoint: Endpoint, dialect: Dialect, decoder: Decoder, mark_ids: list[int], where: str) -> None:
    """Has the server read all of `mark_ids` and write each."""
    for mark_id in mark_ids:
        choice = _at_start(endpoint.post("/completions", partial(dialect.forced, mark_ids, mark_id), read_choice))
        if choice.num_prompt not in (None, len(mark_ids)):
            raise UserError(f"{where} reads {choice.num_prompt} tokens where it is sent {len(mark_ids)}: it changes prompts.")
        # Ids prove themselves: without the one that was asked for, the server does not know logit_bias, and need not.
        text, mark = choice.text.strip(), decoder.decode([mark_id]).strip()
        if text != mark and (choice.token_ids is None or (choice.token_ids == [mark_id] and text)):
            raise UserError(
                f"{where} does not give {mark} back, neither as text nor as a token id, so that thinking cannot be told from "
                "an answer. Either it has another tokenizer than the model that is named here, or it leaves control tokens out "
                "(llama-server needs --special), or it knows no logit_bias. vllm serve has all of it."
            )


def _scores(endpoint: Endpoint, dialect: Dialect, ids: list[int]) -> bool:
    """Says whether the server gives log-probabilities of a prompt in this way."""

    def read(answer: Any) -> bool:
        try:
            dialect.read_logprobs(answer, ids)
        except Unusable:
            return False
        return True

    try:
        return _at_start(endpoint.post("/completions", lambda: dialect.scored(ids), read))
    except Rejected:
        return False


def _at_start(future: Future[T]) -> T:
    """Returns what came of a request; a server that is not there is the user's to start."""
    try:
        return future.result()
    except Unreachable as error:
        raise UserError(
            f"{error} Is it up? It may be started with: vllm serve <the model's folder> --port 8000, and is then "
            "engine.url=http://<host>:8000/v1."
        ) from None
    finally:
        future.cancel()


def _prompt_logprobs(choice: dict[str, Any], ids: Sequence[int]) -> list[float]:
    """Reads vLLM's: for a token a map of ids, the token's own among them, to what is known of each."""
    told = choice["prompt_logprobs"]
    if len(told) != len(ids):
        raise ValueError
    return [0.0, *(float(by_id[str(id_)]["logprob"]) for by_id, id_ in zip(told[1:], ids[1:], strict=True))]


def _echo_logprobs(choice: dict[str, Any], ids: Sequence[int]) -> list[float]:
    """Reads OpenAI's: a list over prompt and output, of which one token was asked for."""
    told = choice["logprobs"]["token_logprobs"]
    if len(told) not in (len(ids), len(ids) + 1):
        raise ValueError
    return [0.0, *map(float, told[1 : len(ids)])]


_READERS = {"prompt_logprobs": _prompt_logprobs, "echo": _echo_logprobs}
