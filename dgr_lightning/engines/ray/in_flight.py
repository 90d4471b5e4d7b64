"""The requests that were sent to the engines of a Ray cluster, until their results are collected."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from dgr_lightning.engines.vllm.messages import VllmRequest, VllmResult


class RequestsInFlight:
    """Requests without a result, and results that nobody has collected yet.

    Attributes:
        num_inside: requests that the engines hold: those that were dropped too, since Ray takes none back.
    """

    def __init__(self) -> None:
        """Starts without requests."""
        self.num_inside = 0
        self._open: dict[int, VllmRequest] = {}
        self._arrived: dict[int, VllmResult] = {}

    @property
    def unfinished(self) -> list[VllmRequest]:
        """The requests whose results are wanted and have not arrived."""
        return list(self._open.values())

    def add(self, requests: Sequence[VllmRequest]) -> None:
        """Notes that requests were sent."""
        self._open |= {request.request_id: request for request in requests}
        self.num_inside += len(requests)

    def arrive(self, result: VllmResult) -> None:
        """Keeps a result, unless its request was dropped."""
        self.num_inside -= 1
        if self._open.pop(result.request_id, None):
            self._arrived[result.request_id] = result

    def collect(self, request_ids: Collection[int]) -> list[VllmResult]:
        """Returns the results that have arrived for these requests; the others' are kept."""
        return [self._arrived.pop(request_id) for request_id in list(self._arrived) if request_id in request_ids]

    def drop(self, request_ids: Iterable[int]) -> None:
        """Forgets requests whose results are no longer wanted."""
        for request_id in request_ids:
            self._arrived.pop(request_id, None)
            self._open.pop(request_id, None)
