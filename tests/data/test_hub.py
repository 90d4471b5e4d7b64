"""Data sets of the hub: prepared once, then read from the cache at their commit.

A small server stands in for the hub, and the real libraries talk to it.
"""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dgr_lightning.data import hub
from dgr_lightning.distributed.launch import run_ranks
from tests.helpers.hub import COMMIT, NOBODY, ROWS
from tests.helpers.runs import ROOT


@pytest.mark.slow
def test_a_dataset_is_prepared_once_and_read_from_the_cache_at_its_commit(ask, hub):
    rows = f"dataset_rows('owner/MySet', '{COMMIT}', 'train')"
    assert ask(rows, hub.url)[0] == ROWS
    hub.asked.clear()
    result, noise, slept = ask(rows, NOBODY)
    assert result == ROWS and noise == "" and slept == 0 and not hub.asked
    other = ask(f"dataset_rows('owner/MySet', '{'d' * 40}', 'train')", NOBODY)[0]
    assert other.startswith("UserError: ") and "data owner/MySet is not in the local cache. Set data.path=" in other
    assert "no split 'test'" in ask(f"dataset_rows('owner/MySet', '{COMMIT}', 'test')", NOBODY)[0]


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        (
            "dataset_rows('owner/None', None, 'train', path_key='evaluation.path.x')",
            ("UserError: owner/None, split train: ", "doesn't exist on the Hub", "evaluation.path.x="),
        ),
        (f"dataset_rows('owner/MySet', '{COMMIT}', 'nosuch')", ("UserError: owner/MySet@", "split nosuch: ", "data.path=")),
    ],
)
def test_what_the_hub_does_not_have_is_named(ask, hub, code, parts):
    message = ask(code, hub.url)[0]
    assert isinstance(message, str) and all(part in message for part in parts)


def count_and_prepare(cache: Path, hub_id: str, subset: str | None, revision: str | None, split: str) -> Any:
    """In place of `datasets.load_dataset`: prepares a data set as that does, slowly, and writes down that it was called."""
    import datasets

    with open(cache / "calls", "a", encoding="utf-8") as calls:
        calls.write(f"{hub_id}\n")
    time.sleep(0.5)
    folder = cache / hub_id.replace("/", "___") / "default" / "0.0.0" / (revision or COMMIT)
    folder.mkdir(parents=True, exist_ok=True)
    with datasets.arrow_writer.ArrowWriter(path=str(folder / f"{hub_id[6:]}-{split}.arrow")) as writer:
        for row in ROWS:
            writer.write(row)
        writer.finalize()
    (folder / "dataset_info.json").write_text("{}")
    return datasets.Dataset.from_file(str(folder / f"{hub_id[6:]}-{split}.arrow"))


def load_both(cache: Path) -> list[list[dict[str, Any]]]:
    """Loads a pinned data set and one that follows a branch, in a process whose hub answers whatever it is asked."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = str(cache)
    datasets.load_dataset = lambda hub_id, subset, *, revision, split: count_and_prepare(cache, hub_id, subset, revision, split)
    hub.hub_reachable = lambda: True
    return [hub.dataset_rows(name, revision, "train") for name, revision in (("owner/pinned", COMMIT), ("owner/branch", None))]


@pytest.mark.slow
def test_of_a_driver_and_its_ranks_one_process_asks_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGR_CACHE", str(tmp_path))
    assert run_ranks(partial(load_both, tmp_path), 2) == [ROWS, ROWS]
    asked = (tmp_path / "calls").read_text().split()
    assert sorted(asked) == ["owner/branch", "owner/pinned"], "the second rank waited for the first"
    alone = subprocess.run(
        [sys.executable, "-c", FOLLOW, str(tmp_path)], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert alone.returncode == 0
    asked = (tmp_path / "calls").read_text().split()
    assert asked[2:] == ["owner/branch"], "a driver follows the branch"


FOLLOW = "import sys; from pathlib import Path; from tests.data.test_hub import load_both; load_both(Path(sys.argv[1]))"
