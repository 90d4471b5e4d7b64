"""The vLLM processes of an engine, and the work that they have.

Whoever hands work over collects its own numbers alone; what arrives meanwhile for somebody else is kept for them. So scores can
be had in the midst of a generation, which goes on meanwhile.
"""

from __future__ import annotations

import atexit
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection, wait

from dgr_lightning.console import progress
from dgr_lightning.engines.vllm.messages import Done, Drop, Setup, Work
from dgr_lightning.engines.vllm.process import VllmProcess


class VllmPool:
    """Processes side by side, each with the same model.

    Attributes:
        max_length: tokens that prompt and output may have together.
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
        self._numbers = count()
        self._open: dict[int, VllmProcess] = {}
        self._arrived: dict[int, Done] = {}
        self._processes: list[VllmProcess] = []
        atexit.register(self.close)
        try:
            for place, environment in enumerate(environments):
                self._processes.append(VllmProcess(f"vLLM's engine {place}", setup, environment))
            lengths = []
            with progress("vLLM's engines", total=len(environments)) as advance:
                for process in self._processes:
                    lengths.append(process.wait_until_ready())
                    advance()
        except BaseException:
            self.close(kill=True)
            raise
        self.max_length = min(lengths)

    def __len__(self) -> int:
        """How many processes there are."""
        return len(self._processes)

    def num_open(self) -> list[int]:
        """Returns for each process how much it has that is not done."""
        return [process.num_open for process in self._processes]

    def number(self) -> int:
        """Returns a number that no work has had."""
        return next(self._numbers)

    def submit(self, work: Sequence[tuple[int, Work]]) -> None:
        """Hands work over, each piece to the process at a place.

        Raises:
            RuntimeError: a process has died.
        """
        batches: dict[int, list[Work]] = defaultdict(list)
        for place, piece in work:
            batches[place].append(piece)
            process = self._open[piece.number] = self._processes[place]
            process.num_open += 1
        for place, batch in batches.items():
            self._processes[place].send(batch)

    def collect(self, numbers: Collection[int], *, wait_for_any: bool) -> list[Done]:
        """Returns what is finished of the work with these numbers.

        Args:
            numbers: work that was submitted and not collected.
            wait_for_any: if nothing is finished yet, wait until something is, be it of this work or of another's.

        Raises:
            RuntimeError: a process has died.
        """
        self._receive(timeout=0)
        if wait_for_any and not any(number in numbers for number in self._arrived):
            assert self._open, "waiting for nothing"
            self._receive(timeout=None)
        return [self._arrived.pop(number) for number in list(self._arrived) if number in numbers]

    def drop(self, numbers: Collection[int]) -> None:
        """Forgets work that nobody waits for any more; does nothing where a process has died or was ended."""
        batches: dict[VllmProcess, list[int]] = defaultdict(list)
        for number in numbers:
            self._arrived.pop(number, None)
            if process := self._open.pop(number, None):
                process.num_open -= 1
                batches[process].append(number)
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
            for done in process.receive():
                # What was dropped may have been on its way.
                if self._open.pop(done.number, None):
                    process.num_open -= 1
                    self._arrived[done.number] = done
