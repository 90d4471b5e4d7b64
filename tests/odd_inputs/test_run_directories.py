"""Damaged run directories and stores: the same command again ends with one message that names the file, or makes it anew.

What is not damaged stays as it is; a run beside it is never touched.
"""

import json
import os
import shutil

import pytest

from tests.helpers.odd_inputs import World, enter, run

pytestmark = pytest.mark.slow  # a run of the command a row, some hundred rows

DEEP = "[" * 100_000 + "]" * 100_000
COMMAND = [
    "name=mine",
    "data.limit=4",
    "sft.epochs=1",
    "sft.batch_size=2",
    "trainer=cpu",
    "trainer.checkpoint_every=1",
    "trainer.keep_optimizer=true",
    "trainer.precision=fp32",
    "engine.precision=fp32",
    "probes.every=0",
    "refine.max_new_tokens=8",
    "refine.temperature=0",
    "evaluation.tasks=[micro-short,micro-harmful]",
    "evaluation.limit=1",
    "evaluation.max_new_tokens=8",
]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A world in which a training of two steps has finished."""
    world = World(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        enter(world, patch)
        assert run("train", COMMAND, None).code == 0
    return world


@pytest.fixture
def again(finished, world, ends):
    """Gives the command again in a copy of the world in which it has finished, after some damage; returns the run directory."""
    for name in ("cwd", "cache"):
        shutil.rmtree(world.root / name)
        shutil.copytree(finished.root / name, world.root / name)
    os.chdir(world.cwd)
    (directory,) = (world.cwd / "runs" / "mine").iterdir()

    def again(damage, code, parts=()):
        damage(directory)
        others = world.state()
        ours = (f"cwd/runs/mine/{directory.name}", "cache")
        outcome = run("train", COMMAND, again.capsys)
        again.check(outcome, code, parts)
        after = world.state()
        lost = [path for path in others if not path.startswith(ours) and after.get(path) != others[path]]
        assert not lost, f"changed or gone beside the run: {lost}"
        return outcome

    return again


@pytest.fixture(autouse=True)
def _capture(again, capsys):
    from tests.helpers.odd_inputs import check_ending

    again.capsys, again.check = capsys, check_ending


CONTENTS: dict[str, bytes | str] = {
    "empty": "",
    "NUL": b"\0" * 100,
    "a list": "[]",
    "null": "null",
    "an empty object": "{}",
    "deep": '{"hash": ' + DEEP + "}",
    "not UTF-8": b'{"hash": "\xff"}',
}


def write(file, content):
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def half(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def folder_instead(file):
    file.unlink()
    file.mkdir()


# What a finished run is shown from.
SHOWN = (".run.json", "summary.json", "stages/measured.json")


@pytest.mark.parametrize("content", [*CONTENTS, "half", "a folder"])
@pytest.mark.parametrize("file", SHOWN)
def test_a_damaged_file_of_a_finished_run_is_one_message(file, content, again):
    def damage(directory):
        if content == "half":
            half(directory / file)
        elif content == "a folder":
            folder_instead(directory / file)
        else:
            write(directory / file, CONTENTS[content])

    again(damage, 2, (file.rpartition("/")[2],))


def unfinished(directory):
    (directory / "summary.json").unlink()


@pytest.mark.parametrize("content", [*CONTENTS, "half"])
@pytest.mark.parametrize("file", ["stages/refine.json", "stages/shift.json", "stages/evaluate_base.json", "stages/train.json"])
def test_a_damaged_record_of_an_unfinished_run_is_one_message(file, content, again):
    def damage(directory):
        unfinished(directory)
        half(directory / file) if content == "half" else write(directory / file, CONTENTS[content])

    again(damage, 2, (file.rpartition("/")[2],))


def cut_csv(directory):
    half(directory / "metrics.csv")


UNTRAINED = {
    "refined set, half": lambda run: half(run / "refined.jsonl"),
    "refined set, empty": lambda run: write(run / "refined.jsonl", ""),
    "refined set, gone": lambda run: (run / "refined.jsonl").unlink(),
    "refined set of other columns": lambda run: write(run / "refined.jsonl", '{"a": 1}\n'),
    "refined set of lists": lambda run: write(run / "refined.jsonl", "[]\n"),
    "refined set of numbers": lambda run: write(
        run / "refined.jsonl",
        json.dumps(dict.fromkeys(("id", "prompt", "trace", "answer", "label", "source", "refined", "reason"), 3)) + "\n",
    ),
    "refined set, deep": lambda run: write(run / "refined.jsonl", '{"id": ' + DEEP + "}\n"),
    "refined set, NUL": lambda run: write(run / "refined.jsonl", b"\0\0\n"),
    "refined set, a folder": lambda run: folder_instead(run / "refined.jsonl"),
    "curves, another header": lambda run: write(run / "metrics.csv", "a,b\n1,2\n"),
    "curves of text": lambda run: write(run / "metrics.csv", "trainer/global_step,train/loss\none,two\n"),
    "curves with more cells": lambda run: write(run / "metrics.csv", "trainer/global_step,train/loss\n1,2,3\n"),
    "curves of NUL": lambda run: write(run / "metrics.csv", b"\0\n\0\n"),
    "curves, not UTF-8": lambda run: write(run / "metrics.csv", b"trainer/global_step\n\xff\n"),
    "curves, a folder": lambda run: folder_instead(run / "metrics.csv"),
    "checkpoint without state": lambda run: next(run.glob("checkpoints/*/state.json")).unlink(),
    "checkpoint of an empty state": lambda run: write(next(run.glob("checkpoints/*/state.json")), "{}"),
    "checkpoint of half a state": lambda run: half(next(run.glob("checkpoints/*/state.json"))),
    "checkpoint without tensors": lambda run: next(run.glob("checkpoints/*/*.safetensors")).unlink(),
    "checkpoint of half the tensors": lambda run: half(next(run.glob("checkpoints/*/*.safetensors"))),
    "checkpoint of no tensors": lambda run: write(next(run.glob("checkpoints/*/*.safetensors")), b"\x02\0\0\0\0\0\0\0{}"),
    "checkpoint that is empty": lambda run: [file.unlink() for file in next(run.glob("checkpoints/step-*")).iterdir()],
    "checkpoints, a file": lambda run: (shutil.rmtree(run / "checkpoints"), write(run / "checkpoints", "")),
}
# Begun again from what there is: nothing of it is read.
MADE_ANEW: set[str] = set()


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_damaged_file_that_training_reads_is_one_message(name, again):
    def damage(directory):
        unfinished(directory)
        (directory / "stages" / "train.json").unlink()
        shutil.rmtree(directory / "model")
        UNTRAINED[name](directory)

    again(damage, 0 if name in MADE_ANEW else 2)


# --- The cache --------------------------------------------------------------------------------------------------------------


def shards(directory, kind="rewrites"):
    return sorted((directory.parents[2].parent / "cache" / kind).glob("*/shard-*.jsonl")) + sorted(
        (directory.parents[2].parent / "cache" / kind).glob("*/*/shard-*.jsonl")
    )


def each_shard(change):
    def damage(directory):
        unfinished(directory)
        shutil.rmtree(directory / "stages")
        for file in shards(directory):
            if file.parent.name != "0123456789abcdef" and not file.parent.name.startswith("verdicts"):
                change(file)

    return damage


def lines_changed(change):
    def of_file(file):
        header, *rows = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(change(header, rows)))

    return each_shard(of_file)


STORES = {
    "empty": (each_shard(lambda file: write(file, "")), 0),
    "torn last line": (lines_changed(lambda header, rows: [header, *rows, *(row[:-5] for row in rows[:1])]), 0),
    "torn header": (lines_changed(lambda header, rows: [header[:-5]]), 0),
    "torn header before rows": (lines_changed(lambda header, rows: [header[:-5] + b"\n", *rows]), 2),
    "header of a list": (lines_changed(lambda header, rows: [b'{"header": []}\n', *rows]), 2),
    "header of null": (lines_changed(lambda header, rows: [b'{"header": null}\n', *rows]), 2),
    "header of another": (lines_changed(lambda header, rows: [b'{"header": {"version": "\\u001b[2J"}}\n', *rows]), 2),
    "no header": (lines_changed(lambda header, rows: rows), 2),
    "deep header": (lines_changed(lambda header, rows: [b'{"header": ' + DEEP.encode() + b"}\n", *rows]), 2),
    "NUL": (each_shard(lambda file: write(file, b"\0" * 4096)), 0),
    "NUL at the end": (lines_changed(lambda header, rows: [header, *rows, b"\0" * 4096]), 0),
    "NUL in the middle": (lines_changed(lambda header, rows: [header, b"\0" * 64 + b"\n", *rows]), 2),
    "row of no texts": (lines_changed(lambda header, rows: [header, *(key(row) + b"}\n" for row in rows)]), 2),
    "row of numbers": (
        lines_changed(
            lambda header, rows: [
                header,
                *(key(row) + b', "text": 1, "num_tokens": "a", "finish_reason": []}\n' for row in rows),
            ]
        ),
        2,
    ),
    "row of more": (lines_changed(lambda header, rows: [header, *(row[:-2] + b', "more": 1}\n' for row in rows)]), 2),
    "row that is deep": (
        lines_changed(lambda header, rows: [header, *(key(row) + b', "a": ' + DEEP.encode() + b"}\n" for row in rows)]),
        2,
    ),
    "row not JSON": (lines_changed(lambda header, rows: [header, *(key(row) + b', "a": }\n' for row in rows)]), 2),
    "a folder": (each_shard(folder_instead), 2),
    "a link to itself": (each_shard(lambda file: (file.unlink(), file.symlink_to(file.name))), 2),
    "a pipe": (each_shard(lambda file: (file.unlink(), os.mkfifo(file))), 2),
}


def key(row: bytes) -> bytes:
    """Returns the beginning of a row, up to its key."""
    return row[: row.index(b'", "') + 1]


@pytest.mark.parametrize("name", STORES)
def test_a_damaged_store_is_one_message_or_written_anew(name, again):
    damage, code = STORES[name]
    again(damage, code)


def test_a_cache_that_is_a_file_is_one_message(world, ends, monkeypatch):
    monkeypatch.setenv("DGR_CACHE", str(world.write("cache", "a file")))
    ends("refine", ["data.limit=1", "refine=vanilla"], parts=("DGR_CACHE=",))


def test_hashes_that_are_damaged_are_made_anew(world, ends, micro_folder):
    (world.cache / "hashes.json").write_text('{"a": [1]}')
    ends("refine", ["plan=true", f"model.path={micro_folder}", f"data.path={world.rows()}"], 0)
