"""The run directory: where a run lives, which config it holds, and which process may write in it.

One process owns a directory, by a lock that the kernel releases when the process dies. docs/architecture.md lists its files;
this module writes `config.yaml` and three hidden files: `.lock`, `.run.json` (the hashed values, from which a message says how
another config differs, and the content hash of the model) and `.asked` (empty; its time says when a finished run was last asked
for).
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from time import monotonic, sleep, strftime
from typing import IO, Any

import yaml
from rich.markup import escape

from dgr_lightning.config import Config
from dgr_lightning.console import say
from dgr_lightning.errors import UserError
from dgr_lightning.file_locks import take_lock
from dgr_lightning.files import exists, read_json, write_json, write_text
from dgr_lightning.pipeline.identity import RunIdentity
from dgr_lightning.pipeline.place import Place
from dgr_lightning.report.summary import SUMMARY
from dgr_lightning.writing import writing

_RUN = ".run.json"
_LOCK = ".lock"
_ASKED = ".asked"
_CONFIG = "config.yaml"
_POLL_SECONDS = 0.1
_SHOWN_DIFFERENCES = 12


class RunDir:
    """A run directory that this process owns until `close`, or until the process ends, however it ends.

    Attributes:
        path: the directory.
        hash: the run hash that it holds.
    """

    def __init__(self, path: Path, run_hash: str, lock: IO[str], place: Place, made: Path | None) -> None:
        """Use `open`."""
        self.path, self.hash, self._lock, self._place, self._made = path, run_hash, lock, place, made

    @classmethod
    def open(
        cls,
        cfg: Config,
        identity: RunIdentity,
        model_hash: str,
        place: Place,
        wait_seconds: float = 10.0,
    ) -> RunDir:
        """Makes or takes up the directory of a run, locks it, and writes the resolved config into it.

        With `cfg.overwrite` everything that an earlier run of the same hash left there is deleted first.

        Args:
            cfg: the checked config, `auto` values resolved.
            identity: of the run.
            model_hash: content hash of the target model, which the identity of a grown one does not hold.
            place: where it goes; it is told the directory.
            wait_seconds: how long to wait for another process that owns the directory.

        Raises:
            UserError: the directory holds another run, one begun on other weights, or something else, or its owner does not let
                go of it. Nothing in it was touched.
        """
        path = place.exact or place.root / cfg.name / identity.directory
        begun_on = None if cfg.overwrite else model_hash
        _check_holds(path, identity, begun_on)
        made = next((folder for folder in (*reversed(path.parents), path) if not exists(folder)), None)
        try:
            with writing(path, refused=False):
                path.mkdir(parents=True, exist_ok=True)
                lock = open(path / _LOCK, "a+", encoding="utf-8")  # noqa: SIM115 - open for as long as the run
        except OSError as error:
            raise UserError(f"{path}: cannot be used as a run directory ({error.strerror}).") from error
        try:
            with writing(path):
                _acquire(lock, path, wait_seconds)
            # Again: the process that had the lock may have been the first to write.
            _check_holds(path, identity, begun_on)
            if cfg.overwrite:
                _empty(path)
            write_json(path / _RUN, {"hash": identity.hash, "model": model_hash, "described": identity.described})
            write_text(path / _CONFIG, f"# run {identity.hash}, resolved\n{yaml.safe_dump(asdict(cfg), sort_keys=False)}")
        except BaseException:
            with suppress(OSError):  # what did not fit is tried once more
                lock.close()
            raise
        place.directory = path
        return cls(path, identity.hash, lock, place, made)

    @property
    def done(self) -> bool:
        """Whether the run is complete: its summary, written last, exists."""
        return (self.path / SUMMARY).exists()

    def note_asked(self) -> None:
        """Notes that a command asked for this finished run; nothing that the run left is written again."""
        (self.path / _ASKED).touch()

    def close(self) -> None:
        """Releases the directory."""
        self._lock.close()

    def __enter__(self) -> RunDir:
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """Releases the directory; one that was made for a run that is refused before anything is in it is deleted."""
        if kind is not None and issubclass(kind, UserError):
            self._delete_unused()
        self.close()

    def _delete_unused(self) -> None:
        """Deletes a directory that this process made and that holds this module's files alone, and parents made for it."""
        if self._made is None or {entry.name for entry in self.path.iterdir()} - {_LOCK, _RUN, _CONFIG}:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        self._place.directory = None
        for parent in self.path.parents:
            if not parent.is_relative_to(self._made):
                return
            with suppress(OSError):  # other runs lie in it
                parent.rmdir()


@contextmanager
def locked(directory: Path, wait_seconds: float = 10.0) -> Iterator[None]:
    """Keeps other processes out of the directory of a run that is read and added to, not run.

    Raises:
        UserError: another process has it and does not let go of it.
    """
    with open(directory / _LOCK, "a+", encoding="utf-8") as lock:
        _acquire(lock, directory, wait_seconds)
        yield


def last_asked(directory: Path) -> float:
    """Returns when a finished run was made, or last asked for again, in seconds since the epoch."""
    return max(file.stat().st_mtime for file in (directory / SUMMARY, directory / _ASKED) if file.exists())


def read_described(directory: Path) -> dict[str, Any]:
    """Returns what the hash of a run directory's run is made of: `RunIdentity.described`."""
    described: dict[str, Any] = read_json(directory / _RUN, "described")["described"]
    return described


def _check_holds(path: Path, identity: RunIdentity, model_hash: str | None) -> None:
    """Raises UserError where a path is anything but free, or the directory of this very run on this very model. Only reads."""
    if not exists(path):
        return
    if not path.is_dir():
        raise UserError(f"{path}: a file lies where the run directory should be; give another hydra.run.dir= or name=.")
    if not (path / _RUN).exists():
        if any(entry.name != _LOCK for entry in path.iterdir()):
            raise UserError(f"{path}: holds files, but no run of this project; give a new or an empty directory.")
        return
    there = read_json(path / _RUN, "hash", "described")
    if there["hash"] == identity.hash:
        if model_hash is not None and there.get("model", model_hash) != model_hash:
            raise UserError(
                f"{path}: was begun on other weights of the model ({there['model']}, here {model_hash}). The same recipe grows "
                "other ones on another machine. Write overwrite=true to start the run anew, or another hydra.run.dir= or name=."
            )
        return
    lines = _differences(there["described"], identity.described)
    shown = "".join(f"\n  {line}" for line in lines[:_SHOWN_DIFFERENCES])
    more = f"\n  … and {len(lines) - _SHOWN_DIFFERENCES} more" if len(lines) > _SHOWN_DIFFERENCES else ""
    raise UserError(
        f"{path}: holds run {there['hash']}, and this config is run {identity.hash}. They differ in{shown}{more}\n"
        "Give another hydra.run.dir=, or delete that directory yourself. Nothing in it was touched."
    )


def _differences(there: Any, here: Any, key: str = "") -> list[str]:
    """Returns a line for every value that differs; what only one side has is named where nothing else tells them apart."""
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return [] if there == here else [f"{key}: {there!r} there, {here!r} here"]
    prefix = f"{key}." if key else ""
    lines = [line for name in there if name in here for line in _differences(there[name], here[name], prefix + name)]
    if not lines:
        lines += [f"{prefix}{name}: {there[name]!r} there, not here" for name in there if name not in here]
        lines += [f"{prefix}{name}: {here[name]!r} here, not there" for name in here if name not in there]
    return lines


def _acquire(lock: IO[str], path: Path, wait_seconds: float) -> None:
    """Takes the lock of a run directory, and writes down who has it."""
    deadline = monotonic() + wait_seconds
    waiting = False
    while not take_lock(lock, wait=False):
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        if monotonic() >= deadline:
            raise UserError(
                f"{path}: in use by {holder}. Wait for its end, or stop it; the same command then continues from there. "
                "Another name= or hydra.run.dir= starts a separate run."
            )
        if not waiting:
            say(f"waiting up to {wait_seconds:.0f} s for {escape(holder)}, which has {escape(str(path))} open")
            waiting = True
        sleep(_POLL_SECONDS)
    lock.seek(0)
    lock.truncate()
    lock.write(f"process {os.getpid()} on {socket.gethostname()} since {strftime('%H:%M:%S')}\n")
    lock.flush()


def _empty(path: Path) -> None:
    """Deletes what an earlier run left, its summary first: a directory that is half emptied is not done."""
    (path / SUMMARY).unlink(missing_ok=True)
    for entry in path.iterdir():
        if entry.name in (_LOCK, _RUN):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
