"""A child process that is asked one question at a time, with limits on its time and its memory.

For work on text that others wrote and that may never end or grow without bounds, such as comparing formulas or rendering a
template: nothing inside a process can stop a loop in C. A child that takes too long is killed, and the next question starts
another. Questions and answers are JSON, a line each.

Parent and child live here: the parent holds a `LimitedProcess`, the module that it names calls `serve`.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import monotonic
from typing import IO, Any

from dgr_lightning.processes import die_with_parent, python_module

START_SECONDS = 120.0
"""How long a child may take to import what it needs, on a machine that is busy."""

# Where the kernel does not end a child with its parent, the child ends itself so long after its time is up.
_GRACE_SECONDS = 2.0

Answer = dict[str, Any]


class NoAnswer(Exception):
    """A question without an answer; the process is gone, and the next question starts another."""


class OutOfTime(NoAnswer):
    """The time was up."""


class Died(NoAnswer):
    """The process ended over the question, twice: it ran out of memory, or crashed."""


class CannotStart(NoAnswer):
    """The process ended before the first question, for example because a package is missing."""


class LimitedProcess:
    """A child that is started by its first question, or by `start`, and replaced when it is gone.

    Threads may share it: they wait for each other. A fork of this process starts a child of its own.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        """Starts nothing yet.

        Args:
            module: of this project, which calls `serve`.
            arguments: of the module, from `sys.argv[2]` on.
        """
        self._module, self._arguments = module, arguments
        self._child: _Child | None = None
        self._lock, self._owner = Lock(), os.getpid()

    @property
    def pid(self) -> int | None:
        """The id of the running child; None where there is none."""
        return None if self._child is None else self._child.process.pid

    def start(self) -> None:
        """Starts the child without waiting until it is ready, so that this process can do something else meanwhile."""
        self._leave_a_forks_parent_alone()
        with self._lock:
            self._started()

    def ask(self, question: Mapping[str, Any], seconds: float) -> Answer:
        """Returns the child's answer.

        A child that died is asked once more: it may have been killed for something else, for example with the thread that
        started it (`die_with_parent`).

        Args:
            question: JSON-able.
            seconds: wall-clock limit, without the start of the child.

        Raises:
            NoAnswer: as its subclasses say.
        """
        self._leave_a_forks_parent_alone()
        line = json.dumps({"seconds": seconds, "question": question}).encode() + b"\n"
        with self._lock:
            try:
                return self._answer(line, seconds)
            except Died:
                return self._answer(line, seconds)

    def close(self) -> None:
        """Ends the child, if there is one; a further question starts another."""
        self._leave_a_forks_parent_alone()
        with self._lock:
            self._kill()

    def _answer(self, line: bytes, seconds: float) -> Answer:
        child = self._started()
        try:
            child.wait_until_ready()
            return child.ask(line, seconds)
        except BaseException:  # also Ctrl-C: the next answer would be that to this question
            self._kill()
            raise

    def _started(self) -> _Child:
        if self._child is None:
            self._child = _Child(self._module, self._arguments)
        return self._child

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _leave_a_forks_parent_alone(self) -> None:
        """Forgets the child of the process that this one was forked from, and a lock that may be held there."""
        if self._owner != os.getpid():
            self._child, self._lock, self._owner = None, Lock(), os.getpid()


class _Child:
    """A running child, seen from its parent; it is killed with this object, at the latest when the parent exits."""

    def __init__(self, module: str, arguments: tuple[str, ...]) -> None:
        command, environment = python_module(module, str(os.getpid()), *arguments)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self._ready = False
        # A thread reads, because not every system can wait for a pipe and a clock at once.
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        reader = Thread(target=_read, args=(self.process.stdout, self._lines), name="limited-process", daemon=True)
        reader.start()
        self.kill = weakref.finalize(self, _kill, self.process, reader, os.getpid())

    def wait_until_ready(self) -> None:
        """Waits for the line that a child writes once it has imported what it needs."""
        if self._ready:
            return
        try:
            self._next(START_SECONDS)
        except NoAnswer as error:
            raise CannotStart from error
        self._ready = True

    def ask(self, line: bytes, seconds: float) -> Answer:
        """Sends a question and returns its answer."""
        end = monotonic() + seconds
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except OSError as error:
            raise Died from error
        return self._next(end - monotonic())

    def _next(self, seconds: float) -> Answer:
        try:
            line = self._lines.get(timeout=max(0.0, seconds))
        except Empty:
            raise OutOfTime from None
        if not line.endswith(b"\n"):  # the end of the stream, perhaps in the middle of an answer
            raise OutOfTime if self._ended_by_its_clock() else Died
        answer: Answer = json.loads(line)
        return answer

    def _ended_by_its_clock(self) -> bool:
        """Whether the system ended the process because of a limit on the time that it computes, which its module had set."""
        with suppress(subprocess.TimeoutExpired):
            return hasattr(signal, "SIGXCPU") and self.process.wait(_GRACE_SECONDS) == -signal.SIGXCPU
        return False


def _read(stream: IO[bytes], lines: SimpleQueue[bytes]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")


def _kill(process: subprocess.Popen[bytes], reader: Thread, owner: int) -> None:
    """Ends a process, whatever it is doing, and waits for its end; not in a fork of its parent."""
    if owner != os.getpid():
        return
    process.kill()
    process.wait()
    reader.join()
    assert process.stdin is not None
    with suppress(OSError):  # it may hold what was never sent
        process.stdin.close()


def serve(prepare: Callable[[], Callable[[dict[str, Any]], Answer]], memory_bytes: int) -> None:
    """Answers the questions of a `LimitedProcess` until the parent closes its end: all that a child's module does.

    Args:
        prepare: imports what answers need and returns the function that gives them; called once, under the limit on memory.
            An answer is JSON-able. An exception of that function ends the child, which the parent sees as a death.
        memory_bytes: limit of the address space, on Linux; elsewhere there is none.
    """
    die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the parent
    _limit_memory(memory_bytes)
    # Answers have a separate stream: whatever a library prints to standard output goes nowhere.
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    logging.disable(logging.CRITICAL)

    def write(answer: Answer) -> None:
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()

    answer = prepare()
    write({})
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        if not sys.platform.startswith("linux"):  # there the kernel ends a child whose parent was killed
            faulthandler.dump_traceback_later(asked["seconds"] + _GRACE_SECONDS, exit=True, file=nowhere)
        given = answer(asked["question"])
        faulthandler.cancel_dump_traceback_later()
        write(given)


def _limit_memory(num_bytes: int) -> None:
    """Limits the address space; macOS accepts no such limit, and Windows has none."""
    if sys.platform.startswith("linux"):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))
