"""Generation and scoring on a server with OpenAI's completions interface: vLLM, SGLang, llama.cpp, and what speaks like them.

Prompts are sent as token ids, so that nobody's tokenizer or chat template comes between. Each request has a seed of its own,
from the stage's seed and its key; greedy text is the model's, sampled text depends on how the server batches, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, Future, wait
from typing import TypeVar

from dgr_lightning.config import EngineConfig
from dgr_lightning.engines.engine import LENGTH, STOP, Completion, Decoder, Request, Sampling
from dgr_lightning.engines.request_queue import Feed
from dgr_lightning.engines.sampling import noise_stream
from dgr_lightning.engines.server.capabilities import Choice, find_dialect, read_choice
from dgr_lightning.engines.server.client import Endpoint, Rejected, Unreachable
from dgr_lightning.errors import UserError

T = TypeVar("T")


class ServerEngine:
    """An `Engine` behind `engine.url`; at most `engine.batch_size` requests are under way, scoring included."""

    def __init__(self, decoder: Decoder, encode: Callable[[str], list[int]], engine: EngineConfig) -> None:
        """Finds out what the server is and takes, by a few tiny requests.

        Args:
            decoder: makes text of tokens.
            encode: makes tokens of text, control tokens recognised, none added.
            engine: `url`, `served_model`, `batch_size`, `timeout_seconds`, `retries`, `max_length`.

        Raises:
            UserError: no server there, a key that it refuses, several models to choose from, another tokenizer, or something
                without which no prompt or no think mark passes.
        """
        if engine.url is None:
            raise UserError("engine=server: name the server with engine.url=http://127.0.0.1:8000/v1, say.")
        self._decoder, self._encode, self._batch_size = decoder, encode, engine.batch_size
        self._endpoint = Endpoint(engine.url, engine.batch_size, engine.timeout_seconds, engine.retries)
        try:
            self._dialect = find_dialect(self._endpoint, decoder, encode, engine.served_model)
        except BaseException:
            self.close()
            raise
        lengths = [length for length in (self._dialect.max_length, engine.max_length) if length is not None]
        self._max_length = min(lengths) if lengths else None

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        """Yields one completion a request, in the order in which they finish.

        A request gets at most the tokens that the server's context leaves it behind its prompt, possibly none; running into
        that end is `length`, as is running into `sampling.max_new_tokens`. What the server has finished is yielded before an
        error is raised.

        Raises:
            UserError: the server refuses a request.
            RuntimeError: it fails for longer than `engine.retries` cover.
        """
        feed = Feed(requests)
        under_way: dict[Future[Choice], Request] = {}
        failed = False
        try:
            while under_way or not feed.ended:
                for request in [] if failed else feed.take(self._batch_size - len(under_way)):
                    budget = sampling.max_new_tokens
                    if self._max_length is not None:
                        budget = min(budget, self._max_length - len(request.prompt_ids))
                    if budget > 0:
                        under_way[self._ask(request, budget, sampling)] = request
                    else:
                        yield Completion(request.key, (), "", LENGTH)
                if not under_way:
                    continue
                # After a failure nothing more is asked, but what the server is at work on may be hours of it and is waited for.
                last, waited_for = failed, ALL_COMPLETED if failed else FIRST_COMPLETED
                finished, _ = wait(under_way, return_when=waited_for)
                good = [future for future in finished if future.exception() is None]
                failed = len(good) < len(finished)
                for future in good:
                    choice = self._result(future, under_way[future].prompt_ids)
                    yield self._completion(under_way.pop(future), choice, sampling)
                if last:
                    for future, request in under_way.items():
                        self._result(future, request.prompt_ids)  # raises
        finally:
            for future in under_way:
                future.cancel()

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Returns for each (prompt ids, target ids) the natural-log probability of every target token, in order.

        The prompt is at least one token; an empty target has an empty score.

        Raises:
            UserError: the server gives no log-probabilities of a prompt, or its context is too short for a pair.
            RuntimeError: it fails for longer than `engine.retries` cover.
        """
        where = f"The server at {self._endpoint.url}"
        if self._dialect.logprobs is None:
            raise UserError(
                f"{where} gives no log-probabilities of a prompt (vLLM's prompt_logprobs, or echo with logprobs), of which NLL "
                "is made. Take engine=transformers or engine=vllm."
            )
        # The server writes one token behind what it scores.
        longest = max((len(prompt) + len(target) + 1 for prompt, target in pairs), default=0)
        if self._max_length is not None and longest > self._max_length:
            raise UserError(
                f"{where} has room for {self._max_length} tokens, and scoring takes {longest}. Start it with more, such as "
                f"vllm serve … --max-model-len {longest}, or take engine=transformers or engine=vllm."
            )
        futures = {i: self._ask_logprobs([*prompt, *target]) for i, (prompt, target) in enumerate(pairs) if target}
        try:
            wait(futures.values(), return_when=FIRST_EXCEPTION)
            # A failed one first: the others may still be under way.
            for i in sorted(futures, key=lambda i: not futures[i].done() or futures[i].exception() is None):
                self._result(futures[i], [*pairs[i][0], *pairs[i][1]])
        finally:
            for future in futures.values():
                future.cancel()
        return [futures[i].result()[len(prompt) :] if i in futures else [] for i, (prompt, _) in enumerate(pairs)]

    def close(self) -> None:
        """Cancels what is under way, closes the connections and ends their thread."""
        self._endpoint.close()

    def _ask(self, request: Request, budget: int, sampling: Sampling) -> Future[Choice]:
        # 31 bits, which every server takes.
        seed = noise_stream(sampling.seed, request.key) % 2**31
        return self._endpoint.post(
            "/completions", lambda: self._dialect.sampled(request.prompt_ids, budget, sampling, seed), read_choice
        )

    def _ask_logprobs(self, ids: list[int]) -> Future[list[float]]:
        return self._endpoint.post(
            "/completions", lambda: self._dialect.scored(ids), lambda answer: self._dialect.read_logprobs(answer, ids)
        )

    def _result(self, future: Future[T], ids: Sequence[int]) -> T:
        """Returns what came of a request about `ids`, or raises what its failure means to the user."""
        try:
            return future.result()
        except Rejected as error:
            raise UserError(
                f"The server at {self._endpoint.url} refuses a request of {len(ids)} tokens: "
                f"{error.said(self._decoder.decode(ids))}. If its context is too short, write engine.max_length=<its length>."
            ) from None
        except Unreachable as error:
            raise RuntimeError(f"{error} What had finished is kept: the same command goes on from there.") from None

    def _completion(self, request: Request, choice: Choice, sampling: Sampling) -> Completion:
        """Returns the completion of an answer, cut before the first stop token in it."""
        ids = self._encode(choice.text) if choice.token_ids is None else choice.token_ids
        end = next((place for place, id_ in enumerate(ids) if id_ in sampling.stop_ids), None)
        if end is None and choice.token_ids is None:
            return Completion(request.key, tuple(ids), choice.text, choice.finish_reason)
        ids = ids[:end]
        return Completion(request.key, tuple(ids), self._decoder.decode(ids), choice.finish_reason if end is None else STOP)
