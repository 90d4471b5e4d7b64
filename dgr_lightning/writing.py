"""What cannot be written, and why: a full disk and its like, as one message that ends a run.

Libraries wrap the system's error in many ways, and that of a write does not name its file. So every writer of this project says
what it writes (`writing`), and an error is recognised here, however deep it lies, by its number or by its words.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dgr_lightning.cache import cache_dir
from dgr_lightning.errors import Incomplete, UserError


class CannotWrite(Incomplete):
    """A file or folder could not be written, for a reason outside this program: the message says which and why."""


_ROOM, _WRITABLE = "Make room there", "Make it writable"

# Error numbers that nothing but a write ends in: why, and what to do.
_OUT_OF_ROOM = {
    errno.ENOSPC: ("no space is left on its disk", _ROOM),
    errno.EDQUOT: ("your quota of its disk is used up", _ROOM),
    errno.EFBIG: ("its file system takes no file of that size", "Choose another disk"),
    errno.EROFS: ("its file system is mounted read-only", _WRITABLE),
}
# A read may end in these as well.
_REFUSED = {
    errno.EACCES: ("permission is denied", _WRITABLE),
    errno.EPERM: ("permission is denied", _WRITABLE),
    errno.EIO: ("its disk reports an input/output error", "Repair it"),
}
# Words of the C library (which Rust quotes, and libraries in exceptions without a number) and of huggingface's.
_WORDS = {
    "No space left on device": errno.ENOSPC,
    "Not enough disk space": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
}
_NO_TEMPORARY_FOLDER = "No usable temporary directory"  # Python's, where it can write to none of the usual ones

_KEPT = "Everything that was complete is kept, and the same command continues from it."


@contextmanager
def writing(path: Path, *, refused: bool = True) -> Iterator[None]:
    """Turns an error of writing a file or folder into one that says what could not be written and why.

    Args:
        path: by the name that the user knows, not that of a partial file.
        refused: also where permission is denied; False leaves that to the caller.

    Raises:
        CannotWrite: the disk is full, a quota or a limit is reached, or the like.
    """
    try:
        yield
    except (CannotWrite, UserError):
        raise
    except Exception as error:
        number = _out_of_room(error)
        if number is None and refused:
            number = _refusal(error, path)
        if number is None:
            raise
        raise CannotWrite(_message(path, number)) from error


def cannot_write(error: BaseException) -> CannotWrite | None:
    """Returns an error as one of writing: what a writer has raised, or what can be nothing else; None for any other."""
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, CannotWrite):
            return cause
    number = _out_of_room(error)
    if number is not None:
        names = [cause.filename2 or cause.filename for cause in chain if isinstance(cause, OSError)]
        names = [name for name in names if isinstance(name, str)]
        return CannotWrite(_message(Path(names[0]) if names else None, number))
    if any(_NO_TEMPORARY_FOLDER in str(cause) for cause in chain):
        return CannotWrite(
            "Temporary files could not be written: none of the usual folders for them can be written to and has space left. "
            f"Make room, or name another folder with TMPDIR=<folder>. {_KEPT}"
        )
    return None


def _message(path: Path | None, number: int) -> str:
    reason, remedy = (_OUT_OF_ROOM | _REFUSED)[number]
    if number == errno.ENOSPC:
        reason += f" ({_free(path)})"
    elif number == errno.EFBIG and (limit := _file_size_limit()) is not None:
        reason, remedy = f"no file may become larger than {readable_size(limit)} (ulimit -f)", "Raise that limit"
    return f"{path or 'A file'} could not be written: {reason}. {remedy}. {_KEPT}"


def _free(path: Path | None) -> str:
    """Returns how much is free on a path's disk, what was written of it being deleted; without a path, wherever it may be."""
    if path is not None:
        return f"{_free_of_total(path)} are free without it"
    places = (Path.cwd(), cache_dir(), Path(tempfile.gettempdir()))
    return "free are " + ", ".join(f"{_free_of_total(place)} in {place}" for place in dict.fromkeys(places))


def _free_of_total(path: Path) -> str:
    existing = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    disk = shutil.disk_usage(existing)
    return f"{readable_size(disk.free)} of {readable_size(disk.total)}"


def _file_size_limit() -> int | None:
    """Returns the size in bytes beyond which this process may write no file; None without such a limit."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if limit == resource.RLIM_INFINITY else limit


def readable_size(size: float) -> str:
    """Returns a number of bytes as people write it: 956 KiB, 1.5 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"


def _out_of_room(error: BaseException) -> int | None:
    """Returns the error number of a full disk or its like that an exception, or one that it came from, has or quotes."""
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in _OUT_OF_ROOM:
            return cause.errno
        for words, number in _WORDS.items():
            if words in str(cause):
                return number
    return None


def _refusal(error: Exception, path: Path) -> int | None:
    """Returns the error number of a refused write; an error that names a file elsewhere is one of reading that."""
    if not isinstance(error, OSError) or error.errno not in _REFUSED:
        return None
    named = error.filename
    return error.errno if named is None or str(named).startswith(str(path.parent)) else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception, then the one that it was raised from, or while handling, and so on."""
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
