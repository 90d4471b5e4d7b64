"""The content hash of a model: over the files of its folder, with the hashes of large files remembered.

Weights have 15 to 140 GB. In the hub's cache they are not read: there a large file is a link to `blobs/<SHA-256>`, a name that
the hub gave it and under which its client stores nothing else. Elsewhere several files are hashed at once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Event, Lock

from dgr_lightning.cache import cache_dir
from dgr_lightning.console import progress
from dgr_lightning.errors import UserError
from dgr_lightning.files import read_json, write_json
from dgr_lightning.hashes import content_hash, file_hash
from dgr_lightning.models.folder import CODE_FILES, INDEX, MODEL_FILES, WEIGHTS, check_folder, weight_files
from dgr_lightning.threads import usable_cores

# The hashes of files from this size on are remembered, or are those by which the hub's cache names them; 16 MiB are hashed in a
# hundredth of a second.
REMEMBERED_BYTES = 16 * 2**20
# A younger file may be written again within one tick of the file system's clock.
STABLE_SECONDS = 2.0
# Hashing less than this is too fast for a progress bar.
SILENT_BYTES = 2**30
# More threads than that wait for one disk.
_MOST_THREADS = 8
_MEBIBYTE = 2**20


def model_hash(folder: Path) -> str:
    """Returns a model's content hash: 16 hex digits over config, weights, tokenizer, chat template and code.

    Hashes of large files are remembered in `$DGR_CACHE/hashes.json` by path, size and time of change.

    Raises:
        UserError: the folder is not a complete model.
    """
    check_folder(folder, str(folder))
    weights = weight_files(folder, str(folder))
    others = {file for pattern in (*MODEL_FILES, *CODE_FILES) for file in folder.glob(pattern) if file.suffix != ".safetensors"}
    if weights[0].name == WEIGHTS:
        others.discard(folder / INDEX)  # left over from an earlier save: the single file is loaded
    memory = _HashMemory(cache_dir() / "hashes.json")
    hashes = memory.hashes(sorted({*weights, *others}))
    memory.save()
    return content_hash(hashes)


def served_hash(folder: Path, served_model: str, url: str) -> str:
    """Returns what stands for the content of a model whose weights are a server's alone.

    Nobody here sees these weights: it is the address, the model's name there, and the tokenizer that prompts it.

    Args:
        folder: with config and tokenizer.
        served_model: name of the model on the server.
        url: of the server.

    Raises:
        UserError: the folder is not complete.
    """
    check_folder(folder, str(folder), weights=False)
    files = {file for pattern in MODEL_FILES if "safetensors" not in pattern for file in folder.glob(pattern)}
    return content_hash("served", {file.name: file_hash(file) for file in sorted(files)}, served_model, url)


def _hub_hash(file: Path) -> str | None:
    """Returns the SHA-256 by which the hub's cache names a large file; None for any other file."""
    target = file.resolve() if file.is_symlink() else file
    named = target.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", target.name)
    return target.name if named and target.stat().st_size >= REMEMBERED_BYTES else None


def _hash_files(files: Sequence[Path]) -> list[str]:
    """Returns the SHA-256 of each file, several at a time, with a progress bar where it takes long."""
    total = sum(file.stat().st_size for file in files)
    bar = progress("hashing the model (MiB)", total // _MEBIBYTE) if total >= SILENT_BYTES else nullcontext()
    done, lock, stopped = 0, Lock(), Event()
    with bar as advance, ThreadPoolExecutor(min(usable_cores(), _MOST_THREADS)) as threads:

        def count(num_bytes: int) -> None:
            nonlocal done
            if stopped.is_set():
                raise CancelledError
            with lock:
                before, done = done, done + num_bytes
                if advance is not None:
                    advance(done // _MEBIBYTE - before // _MEBIBYTE)

        try:
            return list(threads.map(lambda file: file_hash(file, count), files))
        except BaseException:  # such as Ctrl-C: leaving the context waits for the threads
            stopped.set()
            raise


class _HashMemory:
    """SHA-256 of large files by absolute path, size and time of change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, list[int | str]] = self._read()
        self.added: dict[str, list[int | str]] = {}

    def _read(self) -> dict[str, list[int | str]]:
        try:
            known = read_json(self.path)
        except (FileNotFoundError, UserError):  # missing or damaged: files are hashed again
            return {}
        return known if isinstance(known, dict) else {}

    def hashes(self, files: Sequence[Path]) -> Mapping[str, str]:
        """Returns name → SHA-256 of files; of large ones a remembered one where they are unchanged, or the hub's."""
        known = {file.name: self._remembered(file) or _hub_hash(file) for file in files}
        unknown = [file for file in files if known[file.name] is None]
        states = [self._state(file) for file in unknown]
        for file, state, digest in zip(unknown, states, _hash_files(unknown), strict=True):
            known[file.name] = digest
            if state[0] >= REMEMBERED_BYTES and time.time() - state[1] / 1e9 > STABLE_SECONDS:
                self.added[str(file.resolve())] = [*state, digest]
        return {name: digest for name, digest in known.items() if digest is not None}

    def _remembered(self, file: Path) -> str | None:
        remembered = self.known.get(str(file.resolve()))
        return str(remembered[2]) if remembered is not None and remembered[:2] == self._state(file) else None

    @staticmethod
    def _state(file: Path) -> list[int]:
        """Returns what changes with a file: its size, and the time of its last change in ns."""
        stat = file.stat()
        return [stat.st_size, stat.st_mtime_ns]

    def save(self) -> None:
        """Adds new hashes to the file, beside those that other processes have added meanwhile."""
        if self.added:
            write_json(self.path, self._read() | self.added)
