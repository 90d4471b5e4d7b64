"""Requests on their way into an engine: taken when there is room, never before."""

from __future__ import annotations

from collections.abc import Iterable

from dgr_lightning.engines.engine import Request


class Feed:
    """The engine's side of the `requests` that `Engine.generate` is given.

    Attributes:
        ended: whether the last request was taken.
    """

    def __init__(self, requests: Iterable[Request | None]) -> None:
        """Takes nothing yet."""
        self.ended = False
        self._requests = iter(requests)

    def take(self, room: int) -> list[Request]:
        """Returns the requests that are to be had now, at most `room`."""
        taken: list[Request] = []
        while not self.ended and len(taken) < room:
            try:
                request = next(self._requests)
            except StopIteration:
                self.ended = True
                break
            if request is None:
                break
            taken.append(request)
        return taken
