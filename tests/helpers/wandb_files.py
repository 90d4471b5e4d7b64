"""What W&B's offline files of a run hold: the records of its log, and every text in them."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32768
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def records(file: Path) -> list[dict[str, Any]]:
    """Returns the records of a .wandb file, a log in LevelDB's format, as nested dicts."""
    from google.protobuf.json_format import MessageToDict
    from wandb.proto import wandb_internal_pb2

    found = []
    for raw in _raw_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(raw)
        found.append(MessageToDict(record, preserving_proto_field_name=True))
    return found


def _raw_records(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    position, parts = 7, b""
    while position < len(data):
        left = _BLOCK - position % _BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        if not kind:  # the rest of the block is padding
            position += left
            continue
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (_FULL, _LAST):
            yield parts
            parts = b""


def texts(value: Any) -> Iterator[str]:
    """Yields every text in nested dicts and lists, names included."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield str(name)
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def figures(told: list[dict[str, Any]], kind: str) -> dict[str, float]:
    """Returns the last value of every figure in the records of a kind: `summary`, or `history` for the curves."""
    import json

    found = {}
    for record in told:
        for item in record.get(kind, {}).get("update" if kind == "summary" else "item", []):
            name = item.get("key") or "/".join(item["nested_key"])
            found[name] = json.loads(item["value_json"])
    return found
