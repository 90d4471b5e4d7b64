"""The child of `tests/test_limited_process.py`: does what it is asked, good or bad."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from dgr_lightning import limited_process

MEMORY_BYTES = 2**30


def answer(question: dict[str, Any]) -> dict[str, Any]:
    match question["do"]:
        case "echo":
            print("not an answer", flush=True)
            return {"text": question["text"]}
        case "loop":
            while True:
                pass
        case "sleep":
            time.sleep(600)
        case "die":
            with open(question["log"], "a", encoding="utf-8") as log:
                log.write("died\n")
            os._exit(7)
        case "allocate":
            try:
                return {"text": str(len(bytearray(2 * MEMORY_BYTES)))}
            except MemoryError:
                return {"text": "no memory"}
    raise AssertionError(question)


if __name__ == "__main__":
    if sys.argv[2:] == ["elsewhere"]:  # as on a system whose kernel does not end a child with its parent
        sys.platform = "darwin"
        limited_process.die_with_parent = lambda parent: None  # type: ignore[assignment]
        limited_process._GRACE_SECONDS = 0.0
    limited_process.serve(lambda: answer, MEMORY_BYTES)
