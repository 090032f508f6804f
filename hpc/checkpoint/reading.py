"""How is a file of a checkpoint read, that anybody may have put there?

Through its directory, without following a link inside of the checkpoint, and only where it is a regular file: a FIFO or
a device would hang or never end. A hard link is a regular file like any other; its checksum says whether it is ours.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

import xxhash

from hpc.checkpoint.files import CHUNK_BYTES, FileEntry

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_FOLLOWED = (errno.ELOOP, errno.ENOTDIR)
_SHOWN_LENGTH = 300


class DamagedError(Exception):
    """A checkpoint is not what was written; the message says which file and why, and is safe to show."""

    def __init__(self, message: str) -> None:
        super().__init__(shown(message))


def shown(text: object) -> str:
    """A text from a file, as a terminal may get it: one line, nothing that a terminal obeys, of bounded length."""
    whole = str(text)
    cut = whole if len(whole) <= _SHOWN_LENGTH else f"{whole[:_SHOWN_LENGTH]}…"
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in cut)


def opened(directory: Path, name: str) -> io.FileIO:
    """A file of a checkpoint, unbuffered.

    Args:
        directory: The checkpoint; a link to one is not followed.
        name: As a manifest has it, checked.

    Raises:
        DamagedError: It is missing, or no regular file, or a link is on the way to it.
        OSError: It cannot be read.
    """
    try:
        descriptor = _descriptor(directory, name.split("/"))
    except FileNotFoundError:
        raise DamagedError(f"{name} is missing") from None
    except OSError as error:
        if error.errno not in _NOT_FOLLOWED:
            raise
        raise DamagedError(f"{name} must lie in {directory.name} itself, but a link or a file is on the way") from None
    if descriptor is None:
        raise DamagedError(f"{name} must be a regular file, but is a link, a directory or a device")
    return io.FileIO(descriptor)


def _descriptor(directory: Path, parts: list[str]) -> int | None:
    """None where there is something else than a regular file."""
    here = os.open(directory, _FOLDER)
    try:
        for folder in parts[:-1]:
            below = os.open(folder, _FOLDER, dir_fd=here)
            os.close(here)
            here = below
        if not stat.S_ISREG(os.stat(parts[-1], dir_fd=here, follow_symlinks=False).st_mode):
            return None  # it is not even opened: opening some devices does something
        found = os.open(parts[-1], _FILE, dir_fd=here)
    finally:
        os.close(here)
    if stat.S_ISREG(os.fstat(found).st_mode):
        return found
    os.close(found)
    return None


def read_bounded(directory: Path, name: str, most_bytes: int) -> bytes:
    """A small file's content.

    Raises:
        DamagedError: See `opened`; or it has more than `most_bytes`.
        OSError: It cannot be read.
    """
    with opened(directory, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise DamagedError(f"{name} must have {most_bytes} bytes at most, but has {size}")
        return file.read()


def size_problem(directory: Path, name: str, entry: FileEntry) -> str | None:
    """What is wrong with a file, as far as it can be told without reading it."""
    try:
        with opened(directory, name) as file:
            return _size_problem(file, name, entry)
    except DamagedError as error:
        return str(error)
    except OSError as error:
        return unreadable(name, error)


def file_damage(directory: Path, name: str, entry: FileEntry) -> str | None:
    """What is wrong with a file, or None: it has the size and the checksum it was written with."""
    try:
        with opened(directory, name) as file:
            check_size(file, name, entry)
            return None if _digest(file, entry.bytes) == entry.xxh3_128 else checksum_problem(name)
    except DamagedError as error:
        return str(error)
    except OSError as error:
        return unreadable(name, error)


def check_size(file: io.FileIO, name: str, entry: FileEntry) -> None:
    """Refuse an open file that has another size than the manifest says.

    Raises:
        DamagedError: It has.
    """
    problem = _size_problem(file, name, entry)
    if problem:
        raise DamagedError(problem)


def read_whole(directory: Path, name: str, entry: FileEntry) -> bytes:
    """A small file's content.

    Raises:
        DamagedError: It is not what was written.
        OSError: It cannot be read.
    """
    with opened(directory, name) as file:
        check_size(file, name, entry)
        content = file.read()
    if len(content) != entry.bytes or xxhash.xxh3_128_hexdigest(content) != entry.xxh3_128:
        raise DamagedError(checksum_problem(name))
    return content


def checksum_problem(name: str) -> str:
    """The error sentence for a file whose content has changed."""
    return f"{name} does not have the checksum it was written with"


def unreadable(name: str, error: OSError) -> str:
    """The error sentence for a file that the system does not let us read."""
    return f"{name} cannot be read ({error.strerror or error})"


def _size_problem(file: io.FileIO, name: str, entry: FileEntry) -> str | None:
    found = os.fstat(file.fileno()).st_size
    return None if found == entry.bytes else f"{name} should have {entry.bytes} bytes and has {found}"


def _digest(file: io.FileIO, size: int) -> str:
    """xxh3_128 of the first `size` bytes: a file that grows while it is read is not read for ever."""
    digest = xxhash.xxh3_128()
    chunk = memoryview(bytearray(CHUNK_BYTES))
    while size > 0 and (count := file.readinto(chunk[: min(size, CHUNK_BYTES)])):
        digest.update(chunk[:count])
        size -= count
    return digest.hexdigest()
