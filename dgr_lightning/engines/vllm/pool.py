"""The vLLM processes of an engine, and the requests that they have.

Every caller collects the results of its own requests; results that arrive meanwhile for another caller are kept for that one.
So pairs can be scored while a generation goes on.
"""

from __future__ import annotations

import atexit
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection, wait

from dgr_lightning.console import progress
from dgr_lightning.engines.vllm.messages import Drop, Ready, Setup, VllmRequest, VllmResult
from dgr_lightning.engines.vllm.process import VllmProcess


class VllmPool:
    """Processes side by side, each with the same model.

    Attributes:
        max_length: tokens that prompt and output may have together.
        batch_size: sequences that each process decodes together.
    """

    def __init__(self, setup: Setup, environments: Sequence[dict[str, str]]) -> None:
        """Starts the processes and waits until all have loaded the model.

        Args:
            setup: the engine of each.
            environments: for each process, the variables that it has besides this process's own.

        Raises:
            UserError: vLLM cannot serve this model with these settings.
            RuntimeError: a process has died.
        """
        self._ids = count()
        self._open: dict[int, VllmProcess] = {}
        self._arrived: dict[int, VllmResult] = {}
        self._processes: list[VllmProcess] = []
        atexit.register(self.close)
        try:
            for index, environment in enumerate(environments):
                self._processes.append(VllmProcess(f"vLLM's engine {index}", setup, environment))
            ready: list[Ready] = []
            with progress("vLLM's engines", total=len(environments)) as advance:
                for process in self._processes:
                    ready.append(process.wait_until_ready())
                    advance()
        except BaseException:
            self.close(kill=True)
            raise
        self.max_length = min(one.max_length for one in ready)
        self.batch_size = min(one.batch_size for one in ready)

    def __len__(self) -> int:
        """Returns the number of processes."""
        return len(self._processes)

    def num_open(self) -> list[int]:
        """Returns for each process the number of its unfinished requests."""
        return [process.num_open for process in self._processes]

    def next_id(self) -> int:
        """Returns an id that no request has had."""
        return next(self._ids)

    def submit(self, requests: Sequence[tuple[int, VllmRequest]]) -> None:
        """Sends requests, each to the process with the given index.

        Raises:
            RuntimeError: a process has died.
        """
        batches: dict[int, list[VllmRequest]] = defaultdict(list)
        for index, request in requests:
            batches[index].append(request)
            process = self._open[request.request_id] = self._processes[index]
            process.num_open += 1
        for index, batch in batches.items():
            self._processes[index].send(batch)

    def collect(self, request_ids: Collection[int], *, wait_for_any: bool) -> list[VllmResult]:
        """Returns the results that have arrived for these requests.

        Args:
            request_ids: of requests that were submitted and not collected.
            wait_for_any: if none has arrived yet, wait until a result of these or of another caller's requests does.

        Raises:
            RuntimeError: a process has died.
        """
        self._receive(timeout=0)
        if wait_for_any and not any(request_id in request_ids for request_id in self._arrived):
            assert self._open, "waiting for nothing"
            self._receive(timeout=None)
        return [self._arrived.pop(request_id) for request_id in list(self._arrived) if request_id in request_ids]

    def drop(self, request_ids: Collection[int]) -> None:
        """Cancels requests whose results are no longer wanted; ignores processes that have died or ended."""
        batches: dict[VllmProcess, list[int]] = defaultdict(list)
        for request_id in request_ids:
            self._arrived.pop(request_id, None)
            if process := self._open.pop(request_id, None):
                process.num_open -= 1
                batches[process].append(request_id)
        for process, dropped in batches.items():
            with suppress(RuntimeError):
                process.send([Drop(dropped)])

    def close(self, *, kill: bool = False) -> None:
        """Ends the processes and waits for that; their devices' memory is then free.

        Args:
            kill: at once.
        """
        atexit.unregister(self.close)
        self._open.clear()
        processes, self._processes = self._processes, []
        for process in processes:
            process.hang_up()
        for process in processes:
            process.close(kill=kill)

    def _receive(self, timeout: float | None) -> None:
        for ready in wait([process.connection for process in self._processes], timeout):
            assert isinstance(ready, Connection)
            process = next(process for process in self._processes if process.connection is ready)
            for result in process.receive():
                # The result of a dropped request may have been on its way.
                if self._open.pop(result.request_id, None):
                    process.num_open -= 1
                    self._arrived[result.request_id] = result
