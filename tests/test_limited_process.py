"""A child with limits: it answers, it is killed when its time is up, and it leaves nothing behind, however its parent ends."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread, Timer

import psutil
import pytest

from dgr_lightning.limited_process import CannotStart, Died, LimitedProcess, OutOfTime
from tests.helpers.processes import lives

CHILD = "tests.helpers.answering"
ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's part is Linux's")


@pytest.fixture
def process() -> Iterator[LimitedProcess]:
    process = LimitedProcess(CHILD)
    yield process
    process.close()


def echo(process: LimitedProcess, text: str) -> str:
    return str(process.ask({"do": "echo", "text": text}, 60.0)["text"])


def running(process: LimitedProcess) -> psutil.Process:
    assert process.pid is not None
    return psutil.Process(process.pid)


def ended(child: psutil.Process, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while lives(child) and time.monotonic() < end:
        time.sleep(0.02)
    return not lives(child)


def test_one_child_answers_many_questions_of_any_size_and_what_it_prints_is_no_answer(process):
    assert process.pid is None
    texts = ["", "Ünï\ud800\n\x00", "x" * 3_000_000]
    assert [echo(process, text) for text in texts] == texts
    first = process.pid
    assert echo(process, "again") == "again" and process.pid == first


def test_start_does_not_wait_and_the_first_question_finds_the_child(process):
    process.start()
    first = process.pid
    assert first is not None and echo(process, "a") == "a" and process.pid == first


@pytest.mark.parametrize("bad", ["loop", "sleep"])
def test_a_child_that_takes_too_long_is_killed_and_replaced(process, bad):
    assert echo(process, "a") == "a"
    child = running(process)
    with pytest.raises(OutOfTime):
        process.ask({"do": bad}, 0.3)
    assert not lives(child) and process.pid is None
    assert echo(process, "b") == "b"


def test_a_child_that_dies_over_a_question_is_asked_once_more(process, tmp_path):
    with pytest.raises(Died):
        process.ask({"do": "die", "log": str(tmp_path / "log")}, 60.0)
    assert (tmp_path / "log").read_text() == "died\ndied\n"
    assert echo(process, "b") == "b"


def test_a_child_that_was_killed_between_two_questions_is_replaced(process):
    echo(process, "a")
    child = running(process)
    child.kill()
    assert ended(child)
    assert echo(process, "b") == "b"


@ON_LINUX
def test_a_child_that_was_started_by_a_thread_that_ended_is_replaced(process):
    starter = Thread(target=echo, args=(process, "a"))
    starter.start()
    starter.join()
    child = running(process)
    assert ended(child), "the kernel ends a child with the thread that started it"
    assert echo(process, "b") == "b"


@ON_LINUX
def test_memory_is_limited(process):
    assert process.ask({"do": "allocate"}, 60.0) == {"text": "no memory"}


def test_threads_that_share_a_child_get_the_answers_to_their_own_questions(process):
    echo(process, "from this thread, which lives as long as the others")
    with ThreadPoolExecutor(8) as pool:
        texts = [str(number) for number in range(200)]
        assert list(pool.map(lambda text: echo(process, text), texts)) == texts


def test_an_interrupted_question_leaves_no_answer_for_the_next(process):
    echo(process, "a")
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            process.ask({"do": "sleep"}, 60.0)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, handler)
    assert echo(process, "b") == "b"


def test_a_module_that_does_not_start_is_told_from_one_that_dies():
    with pytest.raises(CannotStart):
        LimitedProcess("tests.helpers.no_such_module").ask({}, 60.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_has_a_child_of_its_own(process):
    echo(process, "a")
    first = process.pid
    forked = os.fork()
    if not forked:
        code = 1
        try:
            code = 0 if echo(process, "in the fork") == "in the fork" and process.pid != first else 2
            process.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    assert echo(process, "b") == "b" and process.pid == first


def test_a_child_ends_with_the_object_that_holds_it():
    process = LimitedProcess(CHILD)
    echo(process, "a")
    child = running(process)
    del process
    gc.collect()
    assert not lives(child)


def parent(script: str) -> tuple[subprocess.Popen[str], psutil.Process]:
    """Starts a process that has a child and prints its id; returns both."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"from dgr_lightning.limited_process import LimitedProcess\n{script}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )
    assert process.stdout is not None
    return process, psutil.Process(int(process.stdout.readline()))


def test_no_child_outlives_a_parent_that_exits():
    process, child = parent(
        f"p = LimitedProcess('{CHILD}'); p.ask({{'do': 'echo', 'text': 'a'}}, 60); print(p.pid, flush=True); input()"
    )
    with process:
        process.communicate("\n", timeout=60)  # not before its child was looked up, which would be gone
        assert process.returncode == 0
    assert ended(child)


@pytest.mark.parametrize("system", [pytest.param("", marks=ON_LINUX), "'elsewhere'"])
def test_no_child_outlives_a_killed_parent_not_even_in_a_loop(system):
    process, child = parent(
        f"p = LimitedProcess('{CHILD}', {system}); p.ask({{'do': 'echo', 'text': 'a'}}, 60); print(p.pid, flush=True)\n"
        "p.ask({'do': 'loop'}, 4)"
    )
    with process:
        end = time.monotonic() + 60
        while child.cpu_times().user < 0.5 and time.monotonic() < end:  # until it loops
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert ended(child)
