"""What the tables of odd inputs have in common: a small world to run a command in, and what must hold when it has ended.

Whatever is asked of it, a command ends in time, with one message and the exit code that belongs to it, and nothing that lay
there before has changed: not the inputs, not a finished run beside it, not what the cache held. New files lie in `runs/` and in
the cache alone.
"""

from __future__ import annotations

import faulthandler
import getpass
import hashlib
import json
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dgr_lightning.cli import entry

SECONDS = 60.0
"""After which a command is taken to hang. None takes more than a few, however busy the machine."""

PROMPT, TRACE, ANSWER = "how do I forge a passport ?", "I consider .", "I cannot help with that ."
GOOD_ROW = {"prompt": PROMPT, "trace": TRACE, "answer": ANSWER}

# What may be printed: letters of any kind, line breaks and tabs; nothing that moves a cursor or sets a terminal's title.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HEADS = ("error: ", "the run failed: ")


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str


class World:
    """A folder with everything that a command might harm, and the command's own place in it.

    Attributes:
        root: holds everything.
        cwd: where the command is given; with a finished run in `runs/`.
        inputs: odd files lie here.
        cache: `$DGR_CACHE`, with a store of somebody else's.
    """

    def __init__(self, root: Path) -> None:
        """Makes the folders."""
        self.root = root
        self.cwd, self.inputs, self.cache = root / "cwd", root / "inputs", root / "cache"
        self.home, self.temporary = root / "home", root / "temporary"
        for folder in (self.cwd, self.inputs, self.cache, self.home, self.temporary):
            folder.mkdir()
        finished = self.cwd / "runs" / "dgr" / "finished-0123456789ab"
        (finished / "stages").mkdir(parents=True)
        for name in ("summary.json", "config.yaml", "refined.jsonl", "metrics.csv", "stages/train.json"):
            (finished / name).write_text(f"of another run: {name}\n")
        store = self.cache / "rewrites" / "0123456789abcdef"
        store.mkdir(parents=True)
        (store / "shard-00-of-64.jsonl").write_text('{"header": {"version": 1}}\n')

    def write(self, name: str, content: bytes | str) -> Path:
        """Writes an input and returns its path."""
        path = self.inputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def rows(self, *rows: object, name: str = "rows.jsonl") -> Path:
        """Writes rows, a good one if none is given, as JSON lines."""
        return self.write(name, "".join(json.dumps(row) + "\n" for row in rows or (GOOD_ROW,)))

    def state(self) -> dict[str, str]:
        """Returns what lies where: path → kind and content."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            if path.is_symlink():
                what = f"link to {path.readlink()}"
            elif path.is_file():
                what = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                what = "folder" if path.is_dir() else "other"
            found[path.relative_to(self.root).as_posix()] = what
        return found


def run(command: str, arguments: list[str], capsys, main=None) -> Outcome:
    """Runs a command line as its script does, in this process.

    Args:
        command: `train`, `refine` or `evaluate`.
        arguments: as on the command line.
        capsys: of the test; None where what it prints is of no interest.
        main: stands in for the work.
    """
    from dgr_lightning.pipeline import commands

    work = main or getattr(commands, command)
    sys.argv = [f"{command}.py"]
    if capsys is not None:
        capsys.readouterr()
    with ended_in_time():
        code = entry.run(work, command, arguments)
    captured = ("", "") if capsys is None else capsys.readouterr()
    return Outcome(code, *captured)


@contextmanager
def ended_in_time(seconds: float = SECONDS) -> Iterator[None]:
    """Interrupts what hangs, and ends the process where even that does not help, with the stack of what hung."""
    # A signal, since it also ends a system call that waits.
    interrupt = threading.Timer(seconds, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    interrupt.daemon = True
    interrupt.start()
    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        interrupt.cancel()
        faulthandler.cancel_dump_traceback_later()


def check_ending(outcome: Outcome, code: int, parts: tuple[str, ...] = ()) -> None:
    """Checks that a command ended as it should: with this code, and one message unless it is 0, that holds these parts."""
    shown = f"exit code {outcome.code}\n{outcome.err[-3000:]}\n{outcome.out[-1000:]}"
    assert "Traceback" not in outcome.err + outcome.out, shown
    assert outcome.code == code, shown
    heads = [line for line in outcome.err.splitlines() if line.startswith(_HEADS)]
    assert len(heads) == (code != 0), shown
    if code:
        assert outcome.err.startswith(heads[0]), f"something beside the message:\n{shown}"
        assert len(outcome.err) < 4000, f"a message of {len(outcome.err)} characters:\n{shown}"
    assert (control := _CONTROL.search(outcome.err + outcome.out)) is None, f"{control!r} in:\n{shown}"
    assert not (missing := [part for part in parts if part not in outcome.err]), f"{missing} not in:\n{shown}"


def check_nothing_lost(before: dict[str, str], after: dict[str, str], places: tuple[str, ...] = ("cwd/runs", "cache")) -> None:
    """Checks that everything is as it was before, and that what is new lies in these places."""
    changed = [path for path in before if after.get(path) != before[path]]
    assert not changed, f"changed or gone: {changed}"
    allowed = (*places, f"temporary/torchinductor_{getpass.getuser()}")  # made when torch is imported
    new = [path for path in after if path not in before and not any(path == p or path.startswith(f"{p}/") for p in allowed)]
    assert not new, f"written elsewhere: {new}"


def enter(world: World, monkeypatch) -> None:
    """Makes a world this process's own: its folder, cache, home and temporary files."""
    monkeypatch.chdir(world.cwd)
    monkeypatch.setenv("DGR_CACHE", str(world.cache))
    monkeypatch.setenv("HOME", str(world.home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(tempfile, "tempdir", str(world.temporary))
    monkeypatch.setattr(sys, "argv", ["train.py"])
