"""Disks that are full: a small tmpfs, where it may be mounted, and a limit on the size of files, which needs no right."""

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A tmpfs of a size that can be changed.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", path], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")

    def resize(self, kib: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kib}k", self.path], check=True)

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", self.path], check=True)


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Has writes of this process beyond a file size fail, as `ulimit -f` does; children inherit it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def only_message(stderr: str) -> str:
    """The one message that a failed command has printed."""
    assert "Traceback" not in stderr, stderr
    lines = [line for line in stderr.splitlines() if line and not line.startswith("Error executing job")]
    assert len(lines) == 1, stderr
    return lines[0]
