"""Capabilities of a server of OpenAI's completions interface: its model, the fields of a request, the fields of its answers.

Servers differ, and some refuse a field that they do not know. A few tiny requests find out what this one supports:

- Fields of vLLM and SGLang (`stop_token_ids`, `skip_special_tokens`, `return_token_ids` …), else only OpenAI's own. Among the
  former are those that turn off what a server may do by default (top-k, min-p, penalties).
- Token ids in the answer (vLLM, newer SGLang), else text that shows control tokens. The server is made to write each think
mark,
  with a `logit_bias` that leaves it no choice, rather than trusted to have understood a field.
- Log-probabilities of a prompt as vLLM's `prompt_logprobs`, else as OpenAI's `echo` with `logprobs`, else none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from rich.markup import escape

from dgr_lightning.console import say
from dgr_lightning.engines.engine import LENGTH, STOP, Decoder, Sampling
from dgr_lightning.engines.server.client import Client, Rejected, Unreachable, UnusableAnswer
from dgr_lightning.errors import UserError
from dgr_lightning.models.thinking import FORMATS

T = TypeVar("T")

_NEUTRAL: dict[str, Any] = {"presence_penalty": 0.0, "frequency_penalty": 0.0}
# Otherwise a server would apply the top-k of the model's generation_config.json.
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
    """The parts of an answer that are used.

    Attributes:
        text: as the server decoded it.
        token_ids: the output's tokens, a stop token included; None where the server does not return them.
        finish_reason: `stop` or `length`.
        num_prompt: the server's count of the prompt's tokens; None where it does not return one.
    """

    text: str
    token_ids: list[int] | None
    finish_reason: str
    num_prompt: int | None


@dataclass(frozen=True)
class Capabilities:
    """The capabilities that a server was found to have, and the requests that it therefore gets.

    Attributes:
        model: the model's name on the server.
        max_length: tokens of prompt and output together; None where the server does not say.
        takes_extras: whether it accepts the fields of vLLM and SGLang.
        logprobs: how it returns log-probabilities of a prompt: `prompt_logprobs`, `echo`, or None.
    """

    model: str
    max_length: int | None
    takes_extras: bool = True
    logprobs: str | None = None

    def generation_body(self, prompt_ids: Sequence[int], budget: int, sampling: Sampling, seed: int) -> dict[str, Any]:
        """Returns the body of a request for a completion of at most `budget` tokens."""
        fields: dict[str, Any] = {
            "max_tokens": budget,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
        }
        if self.takes_extras:
            # With stop tokens, ignore_eos stays off: SGLang would ignore them too.
            fields |= {"stop_token_ids": list(sampling.stop_ids), "ignore_eos": not sampling.stop_ids}
            fields |= {"top_k": sampling.top_k} if sampling.top_k else {}
            fields |= {"repetition_penalty": sampling.repetition_penalty}
        return self._body(prompt_ids, fields)

    def forced_body(self, prompt_ids: Sequence[int], token_id: int) -> dict[str, Any]:
        """Returns the body of a request for one token, biased so strongly that it is `token_id`."""
        return self._body(prompt_ids, {"max_tokens": 1, "temperature": 0.0, "logit_bias": {str(token_id): 100}})

    def scoring_body(self, ids: Sequence[int]) -> dict[str, Any]:
        """Returns the body of a request for the log-probabilities of `ids`, and for one more token, which servers insist on."""
        assert self.logprobs is not None
        return self._body(ids, {"max_tokens": 1, "temperature": 0.0, **_LOGPROBS[self.logprobs]})

    def read_logprobs(self, answer: Any, ids: Sequence[int]) -> list[float]:
        """Returns the natural-log probability of every token of `ids`; that of the first, which has none, is 0.

        Raises:
            UnusableAnswer: they are not in the answer.
        """
        assert self.logprobs is not None
        try:
            return _READERS[self.logprobs](answer["choices"][0], ids)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise UnusableAnswer("no log-probabilities of the prompt in the answer") from None

    def _body(self, prompt_ids: Sequence[int], fields: dict[str, Any]) -> dict[str, Any]:
        extras = _EXTRAS if self.takes_extras else {}
        return {"model": self.model, "prompt": list(prompt_ids), **_NEUTRAL, **extras, **fields}


def read_choice(answer: Any) -> Choice:
    """Returns the parts of a completion's answer that are used.

    Raises:
        UnusableAnswer: the output was not finished.
    """
    choice = answer["choices"][0]
    text, token_ids, reason = choice["text"], choice.get("token_ids"), choice["finish_reason"]
    if reason not in (STOP, LENGTH):
        # For example, a server that is being stopped returns what it has, with the finish reason "abort".
        raise UnusableAnswer(f"an output whose finish reason is neither {STOP} nor {LENGTH} but {reason!r:.40}")
    if not isinstance(text, str):
        raise TypeError
    num_prompt = (answer.get("usage") or {}).get("prompt_tokens")
    return Choice(text, None if token_ids is None else [int(id_) for id_ in token_ids], reason, num_prompt)


def find_capabilities(
    client: Client,
    decoder: Decoder,
    encode: Callable[[str], list[int]],
    served_model: str | None,
    own_marks: Sequence[str] = (),
) -> Capabilities:
    """Finds out what a server supports, and verifies that token ids and think marks pass unchanged.

    Args:
        client: of the server.
        decoder: decodes tokens to text.
        encode: encodes text to tokens.
        served_model: the name of its model; None: the only one.
        own_marks: think marks besides those of the known styles.

    Raises:
        UserError: no server there, a key that it refuses, several models to choose from, another tokenizer, or no support of
            something that is indispensable.
    """
    where = f"The server at {client.url}"
    capabilities = Capabilities(*find_model(client, served_model))
    marks = [*(mark for format_ in FORMATS.values() for mark in format_.marks), *own_marks]
    ids = list(dict.fromkeys(encode(mark)[0] for mark in marks))
    try:
        _verify_marks(client, capabilities, decoder, ids, where)
    except Rejected:
        capabilities = replace(capabilities, takes_extras=False)
        try:
            _verify_marks(client, capabilities, decoder, ids, where)
        except Rejected as error:
            raise UserError(
                f"{where} does not take a prompt of token ids at /completions, as vLLM, SGLang and llama.cpp do: "
                f"{error.reason(decoder.decode(ids))}."
            ) from None
    for logprobs in _LOGPROBS:
        scoring = replace(capabilities, logprobs=logprobs)
        if _scores(client, scoring, [*ids, *ids]):
            return scoring
    say(escape(f"{where} returns no log-probabilities of a prompt: it cannot compute NLL."))
    return capabilities


def find_model(client: Client, wanted: str | None) -> tuple[str, int | None]:
    """Returns the name of the model, and the length of its context where the server returns it (vLLM, SGLang).

    Args:
        client: of the server.
        wanted: the name of its model; None: the only one.

    Raises:
        UserError: no server there, a key that it refuses, or not this model alone.
    """
    where = f"The server at {client.url}"

    def read(answer: Any) -> dict[str, int | None]:
        return {str(entry["id"]): entry.get("max_model_len") for entry in answer["data"]}

    try:
        listed = _result_at_start(client.get("/models", read))
    except Rejected as error:
        raise UserError(f"{where} does not list its models at /models: {error.reason('')}.") from None
    if wanted is None and len(listed) == 1:
        return next(iter(listed.items()))
    if wanted is None or wanted not in listed:
        problem = f"serves {len(listed)} models" if wanted is None else f"does not serve {wanted}"
        choices = " or ".join(f"engine.served_model={name}" for name in listed)
        raise UserError(f"{where} {problem}; write {choices or 'the engine.url of one that does'}.")
    return wanted, listed[wanted]


def _verify_marks(client: Client, capabilities: Capabilities, decoder: Decoder, mark_ids: list[int], where: str) -> None:
    """Has the server read all of `mark_ids` and write each, and checks what it wrote."""
    for mark_id in mark_ids:
        choice = _result_at_start(
            client.post("/completions", partial(capabilities.forced_body, mark_ids, mark_id), read_choice)
        )
        if choice.num_prompt not in (None, len(mark_ids)):
            raise UserError(f"{where} reads {choice.num_prompt} tokens where it is sent {len(mark_ids)}: it changes prompts.")
        # Token ids in the answer are enough, also where they are others because the server does not know logit_bias.
        text, mark = choice.text.strip(), decoder.decode([mark_id]).strip()
        if text != mark and (choice.token_ids is None or (choice.token_ids == [mark_id] and text)):
            raise UserError(
                f"{where} does not return {mark}, neither as text nor as a token id, so that thinking cannot be told from an "
                "answer. Either it has another tokenizer than the model of this run, or it leaves control tokens out "
                "(llama-server needs --special), or it does not support logit_bias. vllm serve supports all of it."
            )


def _scores(client: Client, capabilities: Capabilities, ids: list[int]) -> bool:
    """Whether the server returns log-probabilities of a prompt in this way."""

    def read(answer: Any) -> bool:
        try:
            capabilities.read_logprobs(answer, ids)
        except UnusableAnswer:
            return False
        return True

    try:
        return _result_at_start(client.post("/completions", lambda: capabilities.scoring_body(ids), read))
    except Rejected:
        return False


def _result_at_start(future: Future[T]) -> T:
    """Returns the result of a request before any other succeeded: an unreachable server is then the user's to start."""
    try:
        return future.result()
    except Unreachable as error:
        raise UserError(
            f"{error} Is it running? Start one with `vllm serve <the model's folder> --port 8000`, and write "
            "engine.url=http://<host>:8000/v1."
        ) from None
    finally:
        future.cancel()


def _prompt_logprobs(choice: dict[str, Any], ids: Sequence[int]) -> list[float]:
    """Reads vLLM's form: for each token a map from ids, the token's own among them, to their log-probabilities."""
    by_token = choice["prompt_logprobs"]
    if len(by_token) != len(ids):
        raise ValueError
    return [0.0, *(float(by_id[str(id_)]["logprob"]) for by_id, id_ in zip(by_token[1:], ids[1:], strict=True))]


def _echo_logprobs(choice: dict[str, Any], ids: Sequence[int]) -> list[float]:
    """Reads OpenAI's form: a list over prompt and output, which is one token."""
    logprobs = choice["logprobs"]["token_logprobs"]
    if len(logprobs) not in (len(ids), len(ids) + 1):
        raise ValueError
    return [0.0, *map(float, logprobs[1 : len(ids)])]


_READERS = {"prompt_logprobs": _prompt_logprobs, "echo": _echo_logprobs}
