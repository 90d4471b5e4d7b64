"""A damaged shard of a store: its whole rows are read, or one message says that it is damaged; what is written then is kept."""

from __future__ import annotations

import json
import shutil

from dgr_lightning.errors import UserError
from dgr_lightning.generation.completions import CompletionStore, StoredCompletion
from dgr_lightning.generation.shards import shard_of
from tests.fuzz.scratch import scratch_folder

HEADER = {"version": 1, "model": "m", "text": "ü"}
KEY = "x/trace/1"
NEW = "x/trace/new"
SHARD = shard_of(KEY)
NAME = f"shard-{SHARD:02d}-of-64.jsonl"
_FOLDER = scratch_folder() / "store"


def line(value: object) -> bytes:
    """Returns a line of a shard."""
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def row(key: str, text: str) -> dict[str, object]:
    """Returns a row as it is stored."""
    return {"key": key, "text": text, "num_tokens": 3, "finish_reason": "stop"}


WHOLE = line({"header": HEADER}) + line(row(KEY, "text")) + line(row('x/"/2', "größe \\ud800 \n"))
SEEDS = [
    WHOLE,
    WHOLE[:-7],
    WHOLE + b"\0" * 40,
    line({"header": HEADER}),
    line({"header": HEADER}) + line({"key": KEY}) + line({"key": KEY, "text": None}),
    line({"header": {}}) + line(row(KEY, "text")),
    b'{"header": 1}\n',
    b"\n\n",
    b"",
]


def check(data: bytes) -> None:
    """Opens a store whose shard holds these bytes, reads every row, and writes one more."""
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir()
    file = _FOLDER / NAME
    file.write_bytes(data)
    try:
        with CompletionStore(_FOLDER, HEADER) as store:
            found = read_all(store)
            assert file.read_bytes() == data, "reading has changed the file"
            lines = {bytes(whole) for whole in data.split(b"\n")}
            for key, completion in found.items():
                whole = json.dumps(key, ensure_ascii=False).encode()
                assert any(json.dumps(key).encode() in each or whole in each for each in lines), f"{key} out of nowhere"
                assert isinstance(completion, StoredCompletion)
            write_one(store, found)
    except UserError as error:
        str(error).encode("utf-8", "surrogatepass")


def read_all(store: CompletionStore) -> dict[str, StoredCompletion]:
    """Returns key → completion of everything that a store says it holds."""
    found = {}
    for key in list(store):
        completion = store.get(key)
        assert completion is not None
        found[key] = completion
    return found


def write_one(store: CompletionStore, before: dict[str, StoredCompletion]) -> None:
    """Writes a row and opens the store again: everything is there that was there before, and the new row."""
    new = StoredCompletion("new", 1, "stop")
    assert store.claim(SHARD, wait=False)
    if NEW not in store:
        store.append(NEW, new)
    store.release(SHARD)
    with CompletionStore(store.folder, HEADER) as again:
        after = read_all(again)
    assert {NEW: new} | before == after, "lost or changed"
