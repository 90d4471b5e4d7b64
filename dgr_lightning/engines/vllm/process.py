"""A vLLM worker as its parent sees it: started, sent to, received from, ended.

vLLM does not free a GPU's memory within a process, so each engine runs in its own process, whose end frees everything. It dies
with its parent, and the parent learns of its death from the socket between them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from multiprocessing import Pipe

from dgr_lightning.engines.vllm.environments import WORKER
from dgr_lightning.engines.vllm.messages import Drop, Ready, Refused, Setup, VllmRequest, VllmResult
from dgr_lightning.errors import UserError
from dgr_lightning.processes import python_module

_SECONDS_TO_END = 20.0
_LOG_BYTES, _LOG_LINES, _LOG_COLUMNS = 2**16, 12, 300


class VllmProcess:
    """One worker process.

    Attributes:
        connection: readable when there is something to `receive`.
        num_open: requests that it has and has not finished; the pool counts them.
    """

    def __init__(self, name: str, setup: Setup, environment: dict[str, str]) -> None:
        """Starts the process, which loads the model while this returns; `wait_until_ready` comes next.

        Args:
            name: what messages call it.
            setup: its engine.
            environment: variables that it has besides this process's own and `WORKER`.
        """
        self.num_open = 0
        self._name = name
        # A file without a name, of which nothing remains in any case.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self.connection, theirs = Pipe()
        command, own = python_module("dgr_lightning.engines.vllm.worker", str(theirs.fileno()), str(os.getpid()))
        with theirs:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                # A terminal's Ctrl-C is for the parent, which ends its workers.
                start_new_session=True,
                env=own | WORKER | environment,
            )
        self.connection.send(setup)

    def wait_until_ready(self) -> Ready:
        """Waits for the model to be loaded; returns what the engine can do.

        Raises:
            UserError: vLLM cannot serve this model with these settings.
            RuntimeError: it failed otherwise, or the process has died.
        """
        answer = self._receive()
        if isinstance(answer, Ready):
            return answer
        assert isinstance(answer, Refused)
        if answer.is_user_error:
            raise UserError(answer.reason)
        raise RuntimeError(f"{self._name} does not start: {answer.reason}\n{self._last_lines()}")

    def send(self, messages: Sequence[VllmRequest | Drop]) -> None:
        """Sends messages; never waits for requests that are being processed.

        Raises:
            RuntimeError: the process has died.
        """
        try:
            self.connection.send(list(messages))
        except (BrokenPipeError, ConnectionResetError):
            raise self._death_error() from None

    def receive(self) -> list[VllmResult]:
        """Waits until some requests are finished, and returns their results.

        Raises:
            RuntimeError: the process has died.
        """
        results = self._receive()
        assert isinstance(results, list)
        return results

    def hang_up(self) -> None:
        """Tells the process to end, and does not wait for it."""
        self.connection.close()

    def close(self, *, kill: bool = False) -> None:
        """Ends the process and those that vLLM has started, and waits for that.

        Args:
            kill: at once, without giving vLLM time to end by itself.
        """
        self.hang_up()
        if kill:
            self._kill()
        self._wait()
        self._log.close()

    def _receive(self) -> object:
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._death_error() from None

    def _wait(self) -> int:
        """Returns the exit code, after killing the process if it does not end in time."""
        try:
            return self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._kill()
            return self._process.wait()

    def _kill(self) -> None:
        # The process was not reaped yet, or poll would say so: its id, and that of its session, are not reused.
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _death_error(self) -> RuntimeError:
        code = self._wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return RuntimeError(f"{self._name} has died ({how}). Its last lines:\n{self._last_lines()}")

    def _last_lines(self) -> str:
        # Without seeking: the file's position is shared with the process, which goes on writing there.
        begin = max(0, os.fstat(self._log.fileno()).st_size - _LOG_BYTES)
        text = os.pread(self._log.fileno(), _LOG_BYTES, begin).decode(errors="replace")
        return "\n".join(f"  {line[:_LOG_COLUMNS]}" for line in text.rstrip().splitlines()[-_LOG_LINES:]) or "  nothing"
