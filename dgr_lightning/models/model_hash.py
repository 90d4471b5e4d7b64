"""The content hash of a model: over the files of its folder, with the hashes of large files remembered."""

from __future__ import annotations

import time
from pathlib import Path

from dgr_lightning.cache import cache_dir
from dgr_lightning.errors import UserError
from dgr_lightning.files import read_json, write_json
from dgr_lightning.hashes import content_hash, file_hash
from dgr_lightning.models.folder import CODE_FILES, INDEX, MODEL_FILES, WEIGHTS, check_folder, weight_files

# The hashes of files from this size on are remembered; 16 MiB are hashed in a hundredth of a second.
REMEMBERED_BYTES = 16 * 2**20
# A younger file may be written again within one tick of the file system's clock.
STABLE_SECONDS = 2.0


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
    hashes = {file.name: memory.hash(file) for file in sorted({*weights, *others})}
    memory.save()
    return content_hash(hashes)


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

    def hash(self, file: Path) -> str:
        """Returns a file's SHA-256, a remembered one if the file is large and unchanged."""
        stat = file.stat()
        key, state = str(file.resolve()), [stat.st_size, stat.st_mtime_ns]
        remembered = self.known.get(key)
        if remembered is not None and remembered[:2] == state:
            return str(remembered[2])
        digest = file_hash(file)
        if stat.st_size >= REMEMBERED_BYTES and time.time() - stat.st_mtime > STABLE_SECONDS:
            self.added[key] = [*state, digest]
        return digest

    def save(self) -> None:
        """Adds new hashes to the file, beside those that other processes have added meanwhile."""
        if self.added:
            write_json(self.path, self._read() | self.added)
