"""Completions on disk: nothing stored is lost, nothing is generated twice, and two processes never mix."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from dgr_lightning.engines import LENGTH, STOP, Completion, Request, Sampling
from dgr_lightning.errors import UserError
from dgr_lightning.store import CompletionStore, StoredCompletion, generate_stored

HEADER = {"model": "abc", "temperature": 0.6, "stop_ids": (1, 2)}
SAMPLING = Sampling(temperature=0, top_p=1.0, max_new_tokens=4, seed=0, stop_ids=(0,))
HELLO = StoredCompletion('Hello <think>\n\u2028 \N{LLAMA} "x"', 3, STOP)


class Letters:
    """Stands for chat and engine: token n is the n-th letter; a request is answered with its prompt backwards."""

    def __init__(self):
        self.generated: list[str] = []

    def decode(self, ids):
        return "".join(chr(97 + id_) for id_ in ids)

    def generate(self, requests, sampling):
        for request in requests:
            self.generated.append(request.key)
            yield Completion(request.key, tuple(request.prompt_ids[::-1]), LENGTH)


def requests(*keys):
    return [Request(key, (0, 1, int(key))) for key in keys]


def fill(letters, store, *keys):
    return generate_stored(lambda: letters, letters, requests(*keys), SAMPLING, store, "Letters")


def test_what_is_stored_is_read_back(tmp_path):
    with CompletionStore(tmp_path / "s", HEADER) as store:
        assert len(store) == 0
        store.append("a/0", HELLO)
        store.append("b/0", StoredCompletion("", 0, LENGTH))
        assert store.get("a/0") == HELLO
    again = CompletionStore(tmp_path / "s", HEADER)
    assert list(again) == ["a/0", "b/0"]
    assert again.get("a/0") == HELLO
    assert again.get("c/0") is None
    assert again.num_torn == 0


def test_reading_makes_nothing(tmp_path):
    CompletionStore(tmp_path / "s", HEADER)
    assert not (tmp_path / "s").exists()


def test_a_key_is_stored_once(tmp_path):
    with CompletionStore(tmp_path, HEADER) as store:
        store.append("a", HELLO)
        with pytest.raises(ValueError, match="a"):
            store.append("a", HELLO)


@pytest.mark.parametrize(
    "torn", [b'{"key": "c", "te', b'{"key": "c", "text": "x", "num_tokens": 1}'[:-1], b"\x00" * 40, b"\x00\n\x00\n"]
)
def test_a_torn_last_line_is_dropped_and_counted(tmp_path, torn):
    with CompletionStore(tmp_path, HEADER) as store:
        store.append("a", HELLO)
        whole = store.path.stat().st_size
    with open(store.path, "ab") as file:
        file.write(torn)
    with CompletionStore(tmp_path, HEADER) as store:
        assert (list(store), store.num_torn) == (["a"], 1)
        store.append("b", HELLO)
    assert store.path.read_bytes()[:whole].count(b"\n") == 2
    again = CompletionStore(tmp_path, HEADER)
    assert (list(again), again.num_torn) == (["a", "b"], 0)


def test_a_torn_header_is_an_empty_store(tmp_path):
    (tmp_path / "completions.jsonl").write_bytes(b'{"header": {"mod')
    with CompletionStore(tmp_path, HEADER) as store:
        store.append("a", HELLO)
    assert list(CompletionStore(tmp_path, HEADER)) == ["a"]


def test_an_unreadable_line_in_the_midst_is_named(tmp_path):
    with CompletionStore(tmp_path, HEADER) as store:
        store.append("a", HELLO)
        store.append("b", HELLO)
    lines = store.path.read_bytes().split(b"\n")
    store.path.write_bytes(b"\n".join([lines[0], lines[1][:-5], *lines[2:]]))
    with pytest.raises(UserError, match="line 2"):
        CompletionStore(tmp_path, HEADER)


def test_another_header_is_refused_with_the_difference_and_nothing_touched(tmp_path):
    with CompletionStore(tmp_path, HEADER) as store:
        store.append("a", HELLO)
    before = store.path.read_bytes()
    with pytest.raises(UserError, match=r"temperature: 0\.6 there, 0\.7 now; top_p: None there, 1\.0 now") as refusal:
        CompletionStore(tmp_path, HEADER | {"temperature": 0.7, "top_p": 1.0})
    assert "model" not in str(refusal.value).split("otherwise")[1]
    assert store.path.read_bytes() == before


def test_only_what_is_missing_is_generated(tmp_path):
    letters = Letters()
    with CompletionStore(tmp_path, HEADER) as store:
        first = fill(letters, store, "1", "2")
        assert first == {"1": StoredCompletion("bba", 3, LENGTH), "2": StoredCompletion("cba", 3, LENGTH)}
    with CompletionStore(tmp_path, HEADER) as store:
        second = fill(letters, store, "3", "2", "1")
        assert list(second) == ["3", "2", "1"]
        assert {key: second[key] for key in first} == first
    assert letters.generated == ["1", "2", "3"]


def test_no_engine_is_built_and_no_lock_taken_where_everything_is_stored(tmp_path):
    letters = Letters()
    with CompletionStore(tmp_path, HEADER) as writer:
        fill(letters, writer, "1")
        # The writer holds the lock here.
        reader = CompletionStore(tmp_path, HEADER)
        generate_stored(pytest.fail, letters, requests("1"), SAMPLING, reader, "Letters")


def test_two_requests_of_one_key_are_a_mistake(tmp_path):
    with CompletionStore(tmp_path, HEADER) as store, pytest.raises(ValueError, match="same key"):
        fill(Letters(), store, "1", "1")


def test_what_an_engine_finished_before_it_failed_is_kept(tmp_path):
    class Fails(Letters):
        def generate(self, requests, sampling):
            yield from super().generate(requests[:2], sampling)
            raise RuntimeError("out of memory")

    with CompletionStore(tmp_path, HEADER) as store, pytest.raises(RuntimeError):
        fill(Fails(), store, "1", "2", "3")
    letters = Letters()
    with CompletionStore(tmp_path, HEADER) as store:
        fill(letters, store, "1", "2", "3")
    assert letters.generated == ["3"]


# Real processes

WRITER = """
import sys, time
from pathlib import Path
from dgr_lightning.store import CompletionStore, StoredCompletion
with CompletionStore(Path(sys.argv[1]), {"model": "abc", "temperature": 0.6, "stop_ids": [1, 2]}) as store:
    store.lock()
    print("locked", flush=True)
    for i in range(int(sys.argv[2]), int(sys.argv[3])):
        store.append(str(i), StoredCompletion("x" * 5000, i, "stop"))
        print(i, flush=True)
        time.sleep(float(sys.argv[4]))
"""


def writer(folder, first, last, pause):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(first), str(last), str(pause)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_killed_writer_loses_nothing_and_its_lock_dies_with_it(tmp_path):
    process = writer(tmp_path, 0, 1_000_000, 0)
    seen = [process.stdout.readline().strip() for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split("\n")
    process.wait()
    said = [line for line in [*seen[1:], *rest[:-1]] if line]
    start = time.monotonic()
    with CompletionStore(tmp_path, HEADER) as store:
        store.append("after", HELLO)
        assert time.monotonic() - start < 5
        keys = list(store)
    # What was announced is there; at most one more was on its way.
    assert keys[:-1][: len(said)] == said
    assert len(keys) - 1 - len(said) in (0, 1)
    for line in (tmp_path / "completions.jsonl").read_bytes().split(b"\n")[:-1]:
        json.loads(line)


def test_who_waits_for_another_writer_says_so_and_finds_its_completions(tmp_path, capsys):
    process = writer(tmp_path, 1, 4, 0.3)
    assert process.stdout.readline() == "locked\n"
    letters = Letters()
    with CompletionStore(tmp_path, HEADER) as store:
        completions = fill(letters, store, "1", "2", "3", "4")
    process.communicate()
    assert letters.generated == ["4"]
    assert completions["3"].num_tokens == 3
    assert "waiting" in capsys.readouterr().out
