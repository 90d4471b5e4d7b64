"""Rows on disk: nothing written is lost, nothing is written twice, and two processes never mix."""

import json
import os
import signal
import subprocess
import sys

import pytest

from dgr_lightning.engines.engine import LENGTH, STOP
from dgr_lightning.errors import UserError
from dgr_lightning.generation.completions import CompletionStore, StoredCompletion
from dgr_lightning.generation.shards import NUM_SHARDS, shard_of
from dgr_lightning.writing import CannotWrite
from tests.helpers.full_disks import files_no_larger_than

HEADER = {"model": "abc", "temperature": 0.6, "stop_ids": (1, 2)}
HELLO = StoredCompletion('Hello <think>\n\u2028 \N{LLAMA} "x"', 3, STOP)


def put(store, *keys, completion=HELLO):
    for key in keys:
        assert store.claim(shard_of(key), wait=True)
        store.append(key, completion)


def shard_file(folder, key):
    return folder / f"shard-{shard_of(key):02d}-of-{NUM_SHARDS}.jsonl"


def test_what_is_stored_is_read_back(tmp_path):
    with CompletionStore(tmp_path / "s", HEADER) as store:
        assert len(store) == 0
        put(store, "a/0")
        put(store, 'b "quoted" \\ \N{LLAMA}/0', completion=StoredCompletion("", 0, LENGTH))
        assert store.get("a/0") == HELLO
    again = CompletionStore(tmp_path / "s", HEADER)
    assert set(again) == {"a/0", 'b "quoted" \\ \N{LLAMA}/0'} and len(again) == 2
    assert again.get("a/0") == HELLO and "a/0" in again
    assert again.get('b "quoted" \\ \N{LLAMA}/0') == StoredCompletion("", 0, LENGTH)
    assert again.get("c/0") is None and "c/0" not in again
    assert again.num_torn == 0


def test_reading_makes_nothing(tmp_path):
    CompletionStore(tmp_path / "s", HEADER)
    assert not (tmp_path / "s").exists()


def test_the_rows_of_an_example_lie_in_one_shard_in_order_and_examples_are_spread():
    assert {shard_of(f"star1-68/{part}/{attempt}") for part in ("trace", "answer") for attempt in range(9)} == {
        shard_of("star1-68")
    }
    counts = [0] * NUM_SHARDS
    for number in range(64 * 100):
        counts[shard_of(f"star1-{number}")] += 1
    assert min(counts) > 60 and max(counts) < 150


def test_a_key_is_stored_once(tmp_path):
    with CompletionStore(tmp_path, HEADER) as store:
        put(store, "a")
        with pytest.raises(ValueError, match="a"):
            put(store, "a")


def test_only_who_has_claimed_a_shard_writes_to_it(tmp_path):
    with CompletionStore(tmp_path, HEADER) as store, CompletionStore(tmp_path, HEADER) as other:
        assert store.claim(shard_of("a"), wait=False)
        assert not other.claim(shard_of("a"), wait=False)
        with pytest.raises(AssertionError):
            other.append("a", HELLO)
        store.append("a", HELLO)
        store.release(shard_of("a"))
        assert other.claim(shard_of("a"), wait=False)
        with pytest.raises(ValueError, match="stored already"):
            other.append("a", HELLO)


@pytest.mark.parametrize(
    "torn", [b'{"key": "c", "te', b'{"key": "c", "text": "x", "num_tokens": 1}'[:-1], b"\x00" * 40, b"\x00\n\x00\n"]
)
def test_a_torn_last_line_is_dropped_and_counted(tmp_path, torn):
    with CompletionStore(tmp_path, HEADER) as store:
        put(store, "a/0")
    path = shard_file(tmp_path, "a/0")
    before = path.read_bytes()
    path.write_bytes(before + torn)
    with CompletionStore(tmp_path, HEADER) as store:
        assert (list(store), store.num_torn) == (["a/0"], 0)
        put(store, "a/1")
        assert store.num_torn == 1
    assert path.read_bytes().startswith(before) and path.read_bytes().count(b"\n") == 3
    again = CompletionStore(tmp_path, HEADER)
    assert (list(again), again.num_torn) == (["a/0", "a/1"], 0)
    assert again.get("a/1") == HELLO


def test_a_torn_header_is_an_empty_shard(tmp_path):
    shard_file(tmp_path, "a").write_bytes(b'{"header": {"mod')
    with CompletionStore(tmp_path, HEADER) as store:
        put(store, "a")
    assert list(CompletionStore(tmp_path, HEADER)) == ["a"]


def test_an_unreadable_line_in_the_midst_is_named(tmp_path):
    with CompletionStore(tmp_path, HEADER) as store:
        put(store, "a/0", "a/1")
    path = shard_file(tmp_path, "a")
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][:-5], *lines[2:]]))
    with pytest.raises(UserError, match="line 2"):
        CompletionStore(tmp_path, HEADER)
    path.write_bytes(b"\n".join([lines[0], lines[1][:20] + b"}", *lines[2:]]))
    with pytest.raises(UserError, match=path.name):
        CompletionStore(tmp_path, HEADER).get("a/0")


@pytest.mark.parametrize(
    "header",
    [b'{"header": 3}', b"[1]", b'{"header": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"other": {}}', b"\xff{}"],
    ids=range(5),
)
def test_a_damaged_header_is_named_with_its_file(tmp_path, header):
    with CompletionStore(tmp_path, HEADER) as store:
        put(store, "a")
    path = shard_file(tmp_path, "a")
    path.write_bytes(header + (b"}" if not header.endswith(b"}") else b"") + b"\n" + path.read_bytes().split(b"\n", 1)[1])
    with pytest.raises(UserError, match=rf"{path.name}, line 1: unreadable. Delete the file"):
        CompletionStore(tmp_path, HEADER)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b'{"key": "\xff", "text": ""}', "line 2: unreadable"),
        (b'{"key": "\\x", "text": ""}', "line 2: unreadable"),
        (b'{"key": "a", "text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "unreadable. Delete the file"),
        (b'{"key": "a", "text": ' + b"9" * 5_000 + b"}", "unreadable. Delete the file"),
        (b'{"key": "a", "text": ""}', "the row a is damaged"),
        (b'{"key": "a", "text": "", "num_tokens": 1, "finish_reason": "stop", "more": 1}', "the row a is damaged"),
    ],
    ids=range(6),
)
def test_a_damaged_row_is_named(tmp_path, row, message):
    with CompletionStore(tmp_path, HEADER) as store:
        put(store, "a")
    path = shard_file(tmp_path, "a")
    path.write_bytes(path.read_bytes().split(b"\n", 1)[0] + b"\n" + row + b"\n")
    with pytest.raises(UserError, match=message):
        CompletionStore(tmp_path, HEADER).get("a")


def test_another_header_is_refused_with_the_difference_and_nothing_touched(tmp_path):
    with CompletionStore(tmp_path, HEADER) as store:
        put(store, "a")
    before = shard_file(tmp_path, "a").read_bytes()
    with pytest.raises(UserError, match=r"temperature: 0\.6 there, 0\.7 now; top_p: None there, 1\.0 now") as refusal:
        CompletionStore(tmp_path, HEADER | {"temperature": 0.7, "top_p": 1.0})
    assert "model" not in str(refusal.value).split("other settings")[1]
    assert shard_file(tmp_path, "a").read_bytes() == before


# Real processes

WRITER = """
import sys
from pathlib import Path
from dgr_lightning.generation.shards import shard_of
from dgr_lightning.generation.completions import CompletionStore, StoredCompletion
with CompletionStore(Path(sys.argv[1]), {"model": "abc", "temperature": 0.6, "stop_ids": [1, 2]}) as store:
    for i in range(1_000_000):
        store.claim(shard_of(str(i)), wait=True)
        store.append(str(i), StoredCompletion("x" * 5000, i, "stop"))
        print(i, flush=True)
"""


def test_a_killed_writer_loses_nothing_and_its_locks_die_with_it(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    seen = [process.stdout.readline().strip() for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    said = {*seen, *process.stdout.read().split("\n")[:-1]}
    process.wait()
    with CompletionStore(tmp_path, HEADER) as store:
        assert all(store.claim(number, wait=False) for number in range(NUM_SHARDS))
        put(store, "after")
        keys = set(store)
        for key in keys:
            store.get(key)
    # What was announced is there; at most one more was on its way.
    assert said | {"after"} <= keys
    assert len(keys) - 1 - len(said) in (0, 1)
    for path in tmp_path.iterdir():
        for line in path.read_bytes().split(b"\n")[:-1]:
            json.loads(line)


def test_a_row_that_does_not_fit_leaves_no_part_and_what_is_stored_is_kept(tmp_path):
    """Nor does closing the store try it again, which would hide the first error, or keep the locks."""
    long = StoredCompletion("x" * 5000, 5000, STOP)
    fails = pytest.raises(CannotWrite, match=r"shard-\d\d-of-64.jsonl could not be written")
    with fails, CompletionStore(tmp_path, HEADER) as store, files_no_larger_than(4096):
        put(store, "a/1")
        size = shard_file(tmp_path, "a/1").stat().st_size
        put(store, "a/2", completion=long)
    assert shard_file(tmp_path, "a/1").stat().st_size == size and not shard_file(tmp_path, "a/2").read_bytes()[size:]
    with CompletionStore(tmp_path, HEADER) as store:
        put(store, "a/2", completion=long)
        assert store.num_torn == 0 and store.get("a/1") == HELLO and store.get("a/2") == long


def test_a_store_without_room_for_its_header_is_begun_again(tmp_path):
    with pytest.raises(CannotWrite), CompletionStore(tmp_path, HEADER) as store, files_no_larger_than(10):
        put(store, "a/1")
    with CompletionStore(tmp_path, HEADER) as store:
        put(store, "a/1")
        assert store.get("a/1") == HELLO
