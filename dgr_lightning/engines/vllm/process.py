"""A vLLM worker as its parent sees it: started, talked to, watched, ended.

vLLM does not give a GPU's memory back inside a process, so each engine is a process of its own; when that ends, everything is
given back. It dies with its parent, and its parent learns of its death from the socket between them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import Pipe
from pathlib import Path

from dgr_lightning.engines.vllm.messages import Done, Drop, Ready, Refused, Setup, Work
from dgr_lightning.errors import UserError

# What vLLM needs or must not do, whatever the user's shell says.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # the folder has everything
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",  # below it, vLLM may write requests down
    # With a second process for the scheduler, vLLM leaves that one behind when the first is killed.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # The processes of a tensor-parallel group: a forked one would hold the socket open after the worker's death.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
_SECONDS_TO_END = 20.0
_LOG_BYTES, _LOG_LINES, _LOG_COLUMNS = 2**16, 12, 300


class VllmProcess:
    """One worker process.

    Attributes:
        connection: readable when there is something to `receive`.
        num_open: pieces of work that it has and that are not done; whoever sends and receives counts them.
    """

    def __init__(self, name: str, setup: Setup, environment: dict[str, str]) -> None:
        """Starts the process, which loads the model while this returns; `wait_until_ready` comes next.

        Args:
            name: what messages call it.
            setup: its engine.
            environment: variables that it has besides this process's own.
        """
        self.num_open = 0
        self._name = name
        # A file without a name: whatever happens, nothing of it stays.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self.connection, theirs = Pipe()
        # The package must be found from any working directory; -P keeps files that lie there from being imported instead.
        paths = [str(Path(__file__).resolve().parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dgr_lightning.engines.vllm.worker", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                # A terminal's Ctrl-C is for the parent, which ends its workers.
                start_new_session=True,
                env=os.environ | ENVIRONMENT | environment | {"PYTHONPATH": os.pathsep.join(paths)},
            )
        self.connection.send(setup)

    def wait_until_ready(self) -> int:
        """Waits for the model to be loaded; returns the tokens that prompt and output may have together.

        Raises:
            UserError: vLLM cannot serve this model with these settings.
            RuntimeError: it failed otherwise, or the process has died.
        """
        answer = self._receive()
        if isinstance(answer, Ready):
            return answer.max_length
        assert isinstance(answer, Refused)
        if answer.mendable:
            raise UserError(answer.reason)
        raise RuntimeError(f"{self._name} does not start: {answer.reason}\n{self._last_lines()}")

    def send(self, work: Sequence[Work | Drop]) -> None:
        """Hands work over; never waits for what is under way.

        Raises:
            RuntimeError: the process has died.
        """
        try:
            self.connection.send(list(work))
        except (BrokenPipeError, ConnectionResetError):
            raise self._death() from None

    def receive(self) -> list[Done]:
        """Waits until something is finished, and returns it.

        Raises:
            RuntimeError: the process has died.
        """
        done = self._receive()
        assert isinstance(done, list)
        return done

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
            raise self._death() from None

    def _wait(self) -> int:
        """Returns the exit code, after killing the process if it takes its time."""
        try:
            return self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._kill()
            return self._process.wait()

    def _kill(self) -> None:
        # Nobody has waited for the process, or poll would say so: its number, and the session's, are still its own.
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _death(self) -> RuntimeError:
        code = self._wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return RuntimeError(f"{self._name} has died ({how}). What it wrote last:\n{self._last_lines()}")

    def _last_lines(self) -> str:
        # Not by seeking: the position in the file is the process's, which goes on writing there.
        begin = max(0, os.fstat(self._log.fileno()).st_size - _LOG_BYTES)
        text = os.pread(self._log.fileno(), _LOG_BYTES, begin).decode(errors="replace")
        return "\n".join(f"  {line[:_LOG_COLUMNS]}" for line in text.rstrip().splitlines()[-_LOG_LINES:]) or "  nothing"
