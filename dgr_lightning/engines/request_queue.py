"""Requests on their way into an engine: taken when it has room, never before."""

from __future__ import annotations

from collections.abc import Iterable

from dgr_lightning.engines.engine import LENGTH, Completion, Request


class RequestQueue:
    """The engine's side of the `requests` that `Engine.generate` is given.

    Attributes:
        exhausted: whether the last request was taken.
    """

    def __init__(self, requests: Iterable[Request | None]) -> None:
        """Takes nothing yet."""
        self.exhausted = False
        self._requests = iter(requests)

    def take(self, room: int) -> list[Request]:
        """Returns the requests that are available now, at most `room`."""
        taken: list[Request] = []
        while not self.exhausted and len(taken) < room:
            try:
                request = next(self._requests)
            except StopIteration:
                self.exhausted = True
                break
            if request is None:
                break
            taken.append(request)
        return taken


def with_budgets(
    requests: Iterable[Request], max_new_tokens: int, max_length: int | None
) -> tuple[list[tuple[Request, int]], list[Completion]]:
    """Divides requests into those that may generate something and those whose prompt leaves no room for it.

    Args:
        requests: as taken from a queue.
        max_new_tokens: limit of every completion whose request has none of its own.
        max_length: tokens that prompt and completion may have together; None: no limit.

    Returns:
        The former, each with the number of tokens that it may generate; the completions of the latter, empty and ended by
        length.
    """
    budgeted: list[tuple[Request, int]] = []
    empty: list[Completion] = []
    for request in requests:
        budget = max_new_tokens if request.max_new_tokens is None else request.max_new_tokens
        if max_length is not None:
            budget = min(budget, max_length - len(request.prompt_ids))
        if budget > 0:
            budgeted.append((request, budget))
        else:
            empty.append(Completion(request.key, (), "", LENGTH))
    return budgeted, empty
