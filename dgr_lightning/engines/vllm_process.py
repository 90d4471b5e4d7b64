"""A vLLM worker as its parent sees it: started, talked to, watched, ended.

vLLM does not give a GPU's memory back inside a process, so each engine is a process of its own; when that ends, everything is
given back. It dies with its parent, and its parent learns of its death from the socket between them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from dgr_lightning.engines.vllm_messages import Done, Drop, Ready, Refused, Setup, Work
from dgr_lightning.errors import UserError

# What vLLM needs or must not do, whatever the user's shell says.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # the folder has everything
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",  # below it, vLLM may write requests down
    # With a second process for the scheduler, vLLM would leave that one behind when the first is killed.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
_SECONDS_TO_END = 20.0
_LOG_LINES, _LOG_COLUMNS = 12, 300


class VllmProcess:
    """One worker process.

    Attributes:
        connection: to wait on with `multiprocessing.connection.wait`.
        num_open: how much work it has that is not done; the engine keeps it.
    """

    def __init__(self, name: str, setup: Setup, environment: Mapping[str, str]) -> None:
        """Starts the process, which loads the model while this returns; `wait_until_ready` comes next.

        Args:
            name: what messages call it.
            setup: its engine.
            environment: variables that it has besides this process's own.
        """
        self.num_open = 0
        self._name = name
        self._folder = Path(tempfile.mkdtemp(prefix="dgr-vllm-"))
        self._log = self._folder / "vllm.log"
        self.connection, theirs = Pipe()
        # The package must be found from any working directory; -P keeps files that lie there from being imported instead.
        paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs, open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dgr_lightning.engines.vllm_worker", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                # A terminal's Ctrl-C is for the parent, which ends its workers.
                start_new_session=True,
                env=os.environ | _ENVIRONMENT | environment | {"PYTHONPATH": os.pathsep.join(paths)},
            )
        self.connection.send(setup)

    def wait_until_ready(self) -> int:
        """Waits for the model to be loaded; returns the tokens that prompt and output may have together.

        Raises:
            UserError: vLLM cannot serve this model with these settings.
            RuntimeError: the process has died.
        """
        answer = self._receive()
        if isinstance(answer, Ready):
            return answer.max_length
        assert isinstance(answer, Refused)
        # By now vLLM may be taking its time to end: what it says is in the log already.
        message = f"{self._name} does not start: {answer.reason}"
        raise UserError(message) if answer.mendable else RuntimeError(f"{message}\n{self._last_lines()}")

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
        """Returns what was finished; waits for it, so wait on `connection` before.

        Raises:
            RuntimeError: the process has died.
        """
        done = self._receive()
        assert isinstance(done, list)
        return done

    def close(self, *, now: bool = False) -> None:
        """Ends the process and those that vLLM has started, and waits for that.

        Args:
            now: without giving vLLM time to end by itself.
        """
        self.connection.close()
        try:
            if now:
                self._kill()
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _receive(self) -> object:
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._death() from None

    def _kill(self) -> None:
        """Kills the whole session: the process has not been waited for, so its number is still its own."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _death(self) -> RuntimeError:
        try:
            code = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._kill()
            code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return RuntimeError(f"{self._name} has died ({how}). What it wrote last:\n{self._last_lines()}")

    def _last_lines(self) -> str:
        lines = self._log.read_text(errors="replace").rstrip().splitlines()[-_LOG_LINES:]
        return "\n".join(f"  {line[:_LOG_COLUMNS]}" for line in lines) or "  nothing"
