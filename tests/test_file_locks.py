"""Locks on files: one holder at a time, and a sentence where the system has none."""

import errno
import fcntl
import os
import sys

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.file_locks import require_file_locks, take_lock


def test_a_lock_has_one_holder_until_its_file_is_closed(tmp_path):
    require_file_locks()
    with open(tmp_path / "lock", "w") as second:
        with open(tmp_path / "lock", "w") as first:
            assert take_lock(first, wait=True)
            assert not take_lock(second, wait=False)
        assert take_lock(second, wait=False)


def test_a_system_without_file_locks_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with open(tmp_path / "lock", "w") as file:
        for lock in (require_file_locks, lambda: take_lock(file, wait=True)):
            with pytest.raises(UserError, match="Windows has no file locks of the kind that a run needs"):
                lock()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_file_locks_is_named_with_what_to_do(tmp_path, monkeypatch, number):
    def no_locks(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    message = r"lock: its file system has no file locks \(.*Lustre: -o flock.*DGR_CACHE="
    with open(tmp_path / "lock", "w") as file, pytest.raises(UserError, match=message):
        take_lock(file, wait=False)
