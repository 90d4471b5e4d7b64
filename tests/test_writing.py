"""What cannot be written is said once, with its path and its reason, whatever a library makes of the error."""

import errno
import os
from pathlib import Path

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.writing import CannotWrite, cannot_write, readable_size, writing
from tests.helpers.full_disks import files_no_larger_than


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill() -> None:
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")


def test_a_full_disk_is_said_with_path_reason_and_what_is_free(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite) as raised, writing(tmp_path / "runs" / "metrics.csv"):
        fill()
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}/runs/metrics.csv could not be written: no space is left on its disk (")
    assert "are free without it). Make room there. " in message and "the same command continues" in message


def test_a_limit_on_the_size_of_files_is_named(tmp_path: Path) -> None:
    fails = pytest.raises(CannotWrite, match=r"no file may become larger than 200 KiB \(ulimit -f\). Raise that limit")
    with fails, files_no_larger_than(200 * 1024), writing(tmp_path / "model"):
        (tmp_path / "model").write_bytes(bytes(300_000))


class SafetensorError(Exception):
    """safetensors' own: no OSError, and without a number."""


def of_safetensors() -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def of_a_cause() -> None:
    try:
        fill()
    except OSError as error:
        raise RuntimeError("An error occurred while generating the dataset") from error


def of_a_context() -> None:
    try:
        fill()
    finally:
        raise ValueError("I/O operation on closed file")


@pytest.mark.parametrize("fail", [of_safetensors, of_a_cause, of_a_context])
def test_it_is_recognised_however_a_library_wraps_it(fail, tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="model could not be written: no space is left"), writing(tmp_path / "model"):
        fail()


def test_an_error_that_replaced_one_on_purpose_is_not_one_of_writing() -> None:
    try:
        try:
            fill()
        except OSError:
            raise ValueError("another path then") from None
    except ValueError as error:
        assert cannot_write(error) is None


def test_where_no_writer_named_a_path_the_error_does_or_all_places_are_shown(tmp_path: Path) -> None:
    named = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "hub"))
    assert str(cannot_write(named)).startswith(f"{tmp_path}/hub could not be written")
    message = str(cannot_write(full_disk()))
    assert message.startswith("A file could not be written") and f" in {Path.cwd()}" in message


def test_the_innermost_writer_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="inner"), writing(tmp_path / "outer"), writing(tmp_path / "inner"):
        fill()


def test_what_may_not_be_read_is_no_failure_to_write(tmp_path: Path) -> None:
    refused = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "base" / "config.json"))
    with pytest.raises(PermissionError), writing(tmp_path / "run" / "model"):
        raise refused
    assert cannot_write(refused) is None
    with pytest.raises(CannotWrite, match=r"permission is denied\. Make it writable"), writing(tmp_path / "run" / "model"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "run" / "model.partial"))


def test_a_mistake_of_the_user_stays_one(tmp_path: Path) -> None:
    with pytest.raises(UserError), writing(tmp_path):
        raise UserError("row 3 says No space left on device") from full_disk()


def test_sizes_are_read_as_people_write_them() -> None:
    assert [readable_size(size) for size in (0, 4096, 979_000, 2**20, 3 * 2**29, 5000 * 2**30)] == [
        "0 B",
        "4.0 KiB",
        "956 KiB",
        "1.0 MiB",
        "1.5 GiB",
        "5,000.0 GiB",
    ]
