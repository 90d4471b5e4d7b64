"""Generation and scoring on a server with OpenAI's completions interface: vLLM, SGLang, llama.cpp and others.

Prompts are sent as token ids, so that the server applies no tokenizer or chat template. Each request has its own seed, from the
stage's seed and its key; greedy text is the model's, while sampled text also depends on how the server batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, Future, wait
from typing import TypeVar

from dgr_lightning.config import EngineConfig
from dgr_lightning.engines.engine import STOP, Completion, Decoder, Request, Sampling, noise_stream
from dgr_lightning.engines.request_queue import RequestQueue, with_budgets
from dgr_lightning.engines.server.capabilities import Choice, find_capabilities, read_choice
from dgr_lightning.engines.server.client import Client, Rejected, Unreachable
from dgr_lightning.engines.server.url import require_url
from dgr_lightning.errors import UserError

T = TypeVar("T")


class ServerEngine:
    """An `Engine` behind `engine.url`; at most `engine.batch_size` requests are in flight, those for scores included."""

    def __init__(
        self, decoder: Decoder, encode: Callable[[str], list[int]], engine: EngineConfig, marks: Sequence[str] = ()
    ) -> None:
        """Finds out what the server supports, by a few tiny requests.

        Args:
            decoder: decodes tokens to text.
            encode: encodes text to tokens, control tokens recognised, none added.
            engine: `url`, `served_model`, `batch_size`, `timeout_seconds`, `retries`, `max_length`.
            marks: think marks that the server must pass on besides those of the known styles.

        Raises:
            UserError: no server there, a key that it refuses, several models to choose from, another tokenizer, or no support
            of
                something that is indispensable.
        """
        self._decoder, self._encode, self._batch_size = decoder, encode, engine.num_sequences
        self._client = Client(require_url(engine.url), engine.num_sequences, engine.timeout_seconds, engine.retries)
        try:
            self._capabilities = find_capabilities(self._client, decoder, encode, engine.served_model, marks)
        except BaseException:
            self.close()
            raise
        lengths = [length for length in (self._capabilities.max_length, engine.max_length) if length is not None]
        self._max_length = min(lengths) if lengths else None

    def check_top_k(self, top_k: int, temperature: float) -> None:
        """Raises a UserError where sampling needs the field `top_k`, and the server does not know it."""
        if top_k and temperature:
            self._require_extras(f"top_k={top_k}", "refine.top_k=0 and evaluation.top_k=0")

    def check_penalty(self, penalty: float) -> None:
        """Raises a UserError where sampling needs the field `repetition_penalty`, and the server does not know it."""
        if penalty != 1:
            self._require_extras(f"repetition_penalty={penalty:g}", "evaluation.repetition_penalty=1")

    def _require_extras(self, field: str, neutral: str) -> None:
        if not self._capabilities.takes_extras:
            raise UserError(
                f"The server at {self._client.url} takes no field but OpenAI's own, and {field} is none. Write {neutral}, or "
                "take engine=transformers or engine=vllm."
            )

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        """Yields one completion a request, in the order in which they finish.

        A completion ends with `length` at `sampling.max_new_tokens` or at the end of the server's context; where the prompt
        leaves no room, it is empty. Finished completions are yielded before an error is raised.

        Raises:
            UserError: the server refuses a request, or does not know the field of `sampling.top_k` or of a repetition penalty.
            RuntimeError: it fails for longer than `engine.retries` cover.
        """
        self.check_top_k(sampling.top_k, sampling.temperature)
        self.check_penalty(sampling.repetition_penalty)
        queue = RequestQueue(requests)
        in_flight: dict[Future[Choice], Request] = {}
        failed = False
        try:
            while in_flight or not queue.exhausted:
                taken = [] if failed else queue.take(self._batch_size - len(in_flight))
                budgeted, empty = with_budgets(taken, sampling.max_new_tokens, self._max_length)
                in_flight |= {self._send(request, budget, sampling): request for request, budget in budgeted}
                yield from empty
                if not in_flight:
                    continue
                # After a failure nothing more is sent, but the requests that the server has may be hours of work: they are
                # awaited.
                last, awaited = failed, ALL_COMPLETED if failed else FIRST_COMPLETED
                finished, _ = wait(in_flight, return_when=awaited)
                succeeded = [future for future in finished if future.exception() is None]
                failed = len(succeeded) < len(finished)
                for future in succeeded:
                    choice = self._result(future, in_flight[future].prompt_ids)
                    yield self._completion(in_flight.pop(future), choice, sampling)
                if last:
                    for future, request in in_flight.items():
                        self._result(future, request.prompt_ids)  # raises
        finally:
            for future in in_flight:
                future.cancel()

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Returns for each (prompt ids, target ids) the natural-log probability of every target token, in order.

        The prompt is at least one token; an empty target has an empty score.

        Raises:
            UserError: the server returns no log-probabilities of a prompt, or its context is too short for a pair.
            RuntimeError: it fails for longer than `engine.retries` cover.
        """
        where = f"The server at {self._client.url}"
        if self._capabilities.logprobs is None:
            raise UserError(
                f"{where} returns no log-probabilities of a prompt (vLLM's prompt_logprobs, or echo with logprobs), which NLL "
                "is computed from. Take engine=transformers or engine=vllm."
            )
        # The server generates one token after those that it scores.
        longest = max((len(prompt) + len(target) + 1 for prompt, target in pairs), default=0)
        if self._max_length is not None and longest > self._max_length:
            raise UserError(
                f"{where} has room for {self._max_length} tokens, and scoring takes {longest}. Start it with more, such as "
                f"vllm serve … --max-model-len {longest}, or take engine=transformers or engine=vllm."
            )
        futures = {i: self._send_for_logprobs([*prompt, *target]) for i, (prompt, target) in enumerate(pairs) if target}
        try:
            wait(futures.values(), return_when=FIRST_EXCEPTION)
            # A failed one first: others may still be running.
            for i in sorted(futures, key=lambda i: not futures[i].done() or futures[i].exception() is None):
                self._result(futures[i], [*pairs[i][0], *pairs[i][1]])
        finally:
            for future in futures.values():
                future.cancel()
        return [futures[i].result()[len(prompt) :] if i in futures else [] for i, (prompt, _) in enumerate(pairs)]

    def close(self) -> None:
        """Cancels all requests, closes the connections and ends their thread."""
        self._client.close()

    def _send(self, request: Request, budget: int, sampling: Sampling) -> Future[Choice]:
        # 31 bits, which every server accepts.
        seed = noise_stream(sampling.seed, request.key) % 2**31
        return self._client.post(
            "/completions", lambda: self._capabilities.generation_body(request.prompt_ids, budget, sampling, seed), read_choice
        )

    def _send_for_logprobs(self, ids: list[int]) -> Future[list[float]]:
        return self._client.post(
            "/completions",
            lambda: self._capabilities.scoring_body(ids),
            lambda answer: self._capabilities.read_logprobs(answer, ids),
        )

    def _result(self, future: Future[T], ids: Sequence[int]) -> T:
        """Returns the result of a request about `ids`, or raises the error that its failure means to the user."""
        try:
            return future.result()
        except Rejected as error:
            raise UserError(
                f"The server at {self._client.url} refuses a request of {len(ids)} tokens: "
                f"{error.reason(self._decoder.decode(ids))}. If its context is too short, write engine.max_length=<its length>."
            ) from None
        except Unreachable as error:
            raise RuntimeError(f"{error} Everything finished is kept: the same command continues from there.") from None

    def _completion(self, request: Request, choice: Choice, sampling: Sampling) -> Completion:
        """Returns the completion of an answer, cut before the first stop token in it."""
        ids = self._encode(choice.text) if choice.token_ids is None else choice.token_ids
        end = next((index for index, id_ in enumerate(ids) if id_ in sampling.stop_ids), None)
        if end is None and choice.token_ids is None:
            return Completion(request.key, tuple(ids), choice.text, choice.finish_reason)
        ids = ids[:end]
        return Completion(request.key, tuple(ids), self._decoder.decode(ids), choice.finish_reason if end is None else STOP)
