"""Source sets on disk for the tests of data: plain rows, written as JSON lines."""

import json
from pathlib import Path

from dgr_lightning.config import DataConfig


def source_set(tmp_path: Path, rows: list[dict], *, name: str = "set", **settings) -> DataConfig:
    """Writes rows to a file and returns the config that reads them."""
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataConfig(name=name, path=str(path), **settings)


def plain_rows(count: int, label: str | None = None, start: int = 0) -> list[dict]:
    """Numbered rows of prompt, trace and answer, all with one label or none."""
    labels = {} if label is None else {"label": label}
    return [
        {"prompt": f"p{index}", "trace": f"t{index}", "answer": f"a{index}", **labels} for index in range(start, start + count)
    ]
