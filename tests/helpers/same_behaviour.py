"""Compares what two checkouts do, file by file: for a change that is meant to move code and nothing else.

    python tests/helpers/same_behaviour.py run CHECKOUT OUT      # runs the commands below in a checkout, into OUT
    python tests/helpers/same_behaviour.py compare OUT OUT       # every file of every run, times aside

Both checkouts run under the same Python, each with its own cache under OUT, which starts empty.
What tells how long something took, or how much memory a process had, is left out of the comparison; everything else has to be
equal to the bit. Names of run directories hold the run hash, names of folders in the cache the generation hash: so equal names
are equal hashes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SMALL = ("data.limit=64", "evaluation.limit=20")
COMMANDS = {
    "default": ["train.py"],
    "vanilla": ["train.py", "refine=vanilla"],
    "sdft": ["train.py", "refine=sdft", *SMALL],
    "thinksafe": ["train.py", "refine=thinksafe", *SMALL],
    "filters-only": ["train.py", "refine=filters-only", *SMALL],
    "best-of-4": ["train.py", "refine=dgr-best-of-4", *SMALL],
    "answer-only": ["train.py", "refine=dgr-answer-only", *SMALL],
    "length-matched": ["train.py", "refine=length-matched", "data.limit=null", "evaluation.limit=20"],
    "r1act": [
        "train.py",
        "data=micro-r1act",
        "data.limit=64",
        "refine.fraction=0.5",
        "evaluation.samples=2",
        "evaluation.temperature=0.6",
        "evaluation.limit=20",
    ],
    "kl": ["train.py", *SMALL, "shift.prompts=8", "shift.embedding=target"],
    "lora": ["train.py", "tuning=lora", "sft.lr=5e-3", *SMALL],
    "muon": ["train.py", "sft.optimizer=muon", *SMALL],
    "8bit": ["train.py", "sft.optimizer=adamw8bit", *SMALL],
    "fsdp": [
        "train.py",
        "trainer=fsdp",
        "trainer.devices=2",
        "data.limit=64",
        "evaluation.limit=20",
        "sft.select=probe/reasoning_accuracy",
    ],
    "sweep": ["train.py", "-m", "refine=vanilla,dgr", "seed=3,4", "data.limit=32", "evaluation.limit=8", "probes.every=0"],
    "refine": ["refine.py", "data.limit=64", "refine.tries=3"],
    "evaluate": ["evaluate.py", "evaluation.limit=20"],
}
_TIMES = re.compile(r"seconds|per_second|memory|mfu|finished|timestamp", re.IGNORECASE)
# Files whose bytes follow from a library's version or from the clock, and .lock, which names a process.
_LEFT_OUT = re.compile(r"(^|/)(\.lock|hashes\.json|wandb)($|/)|\.lock$")


def main() -> int:
    """Runs or compares; returns the exit code: 1 where anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    calls = parser.add_subparsers(dest="call", required=True)
    run = calls.add_parser("run", help="run the commands in a checkout")
    run.add_argument("checkout", type=Path)
    run.add_argument("out", type=Path)
    run.add_argument("--python", default=sys.executable, help="of the environment that has the requirements")
    run.add_argument("--only", nargs="*", default=list(COMMANDS), help="names of commands")
    compare = calls.add_parser("compare", help="compare what two checkouts made")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    args = parser.parse_args()
    return _run(args) if args.call == "run" else _compare(args.before, args.after)


def _run(args: argparse.Namespace) -> int:
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "DGR_CACHE": str(out / "cache"),
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
    }
    failed = 0
    for name in args.only:
        # A relative name, so that no path in any file tells where OUT is.
        script, *overrides = COMMANDS[name]
        command = [args.python, str(args.checkout.resolve() / script), *overrides, f"name={name}"]
        with open(out / f"{name}.txt", "w", encoding="utf-8") as screen:
            done = subprocess.run(command, cwd=out, env=environment, stdout=screen, stderr=subprocess.STDOUT, check=False)
        print(f"{name}: exit code {done.returncode}", flush=True)
        failed += done.returncode != 0
    return int(failed > 0)


def _compare(before: Path, after: Path) -> int:
    names = sorted({*_files(before), *_files(after)})
    different = 0
    for name in names:
        one, other = before / name, after / name
        if not one.exists() or not other.exists():
            print(f"only {'after' if other.exists() else 'before'}: {name}")
            different += 1
        elif one.read_bytes() != other.read_bytes() and _plain(one) != _plain(other):
            print(f"different: {name}")
            different += 1
    print(f"{len(names)} files, {different} different")
    return int(different > 0)


def _files(root: Path) -> Iterator[str]:
    for folder in ("runs", "multirun", "cache"):
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and not _LEFT_OUT.search(name):
                yield name


def _plain(path: Path) -> Any:
    """Returns what a file says, without times."""
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".jsonl":
        return [_without_times(json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line]
    if path.suffix == ".csv":
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        return [{name: cell for name, cell in row.items() if not _TIMES.search(name)} for row in rows]
    if path.suffix == ".safetensors":
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        return json.loads(content[8:start]), content[start:]  # the order of the header's metadata differs from run to run
    if path.suffix == ".html":
        return re.sub(
            r"[\d.,]+(?= ?(s|MiB|GiB|tokens/s)\b)|<path [^>]*>|<text [^>]*>[^<]*</text>", "", path.read_text(encoding="utf-8")
        )
    return path.read_bytes()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if not _TIMES.search(key)}
    if isinstance(value, list):
        return [_without_times(item) for item in value]
    return value


if __name__ == "__main__":
    sys.exit(main())
