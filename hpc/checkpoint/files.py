"""How do bytes get to disk for good, with their checksum, and what is said when they do not?"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import xxhash

from hpc.errors import SaveError
from hpc.files import create

CHUNK_BYTES = 1 << 20
"""Hashed and written in turns, so that a chunk is still in the processor's cache when it is needed again."""


@dataclass(frozen=True)
class FileEntry:
    """What the manifest says of a file.

    Args:
        bytes: Its size.
        xxh3_128: Its checksum, in hexadecimal.
        rank: Who wrote it.
    """

    bytes: int
    xxh3_128: str
    rank: int


class HashingWriter:
    """A binary file that knows the checksum of what went through it, so that nothing is read back.

    Args:
        file: Unbuffered, or it is flushed by who opened it.
        rank: Whose file this is.
    """

    def __init__(self, file: IO[bytes], rank: int = 0) -> None:
        self.file = file
        self.rank = rank
        self.bytes = 0
        self._hash = xxhash.xxh3_128()

    def write(self, data: bytes | memoryview) -> int:
        """Write and hash; returns the number of bytes."""
        view = memoryview(data).cast("B")
        for begin in range(0, len(view), CHUNK_BYTES):
            chunk = view[begin : begin + CHUNK_BYTES]
            self._hash.update(chunk)
            self.file.write(chunk)
        self.bytes += len(view)
        return len(view)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self.file.flush()

    def entry(self) -> FileEntry:
        """What the manifest says of this file."""
        return FileEntry(self.bytes, self._hash.hexdigest(), self.rank)


def write_file(path: Path, rank: int, write: Callable[[HashingWriter], None]) -> FileEntry:
    """Create a file and make it durable.

    Args:
        path: Must not exist, not even as a link; nobody but the owner may write it, whatever the umask.
        rank: Who writes it.
        write: Fills it.
    """
    with create(path) as file:
        writer = HashingWriter(file, rank)
        write(writer)
        file.flush()
        os.fsync(file.fileno())
    return writer.entry()


def read_entry(path: Path, rank: int) -> FileEntry:
    """Make durable a file that other code has written, and take its checksum by reading it."""
    digest, size = xxhash.xxh3_128(), 0
    chunk = memoryview(bytearray(CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        while count := file.readinto(chunk):
            digest.update(chunk[:count])
            size += count
    return FileEntry(size, digest.hexdigest(), rank)


@contextmanager
def explained(directory: Path) -> Iterator[None]:
    """Turn what the file system says about `directory` into a SaveError.

    torch's zip writer answers a full disk with a RuntimeError (torch 2.13): both mean the same to us.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise SaveError(f"{directory} could not be written: {_cause(error, directory)}.") from error


def _cause(error: OSError | RuntimeError, directory: Path) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOSPC and _inodes_left(directory) == 0:
        return "its file system has no inodes left, so delete files there"
    advice = {
        errno.ENOSPC: "its file system is full, so free space there",
        errno.EDQUOT: "the quota there is used up, so delete files or ask for more",
        errno.EROFS: "its file system is mounted read-only",
        errno.ENOENT: "it has vanished",
    }
    return advice.get(number or 0, str(error).splitlines()[0])


def _inodes_left(directory: Path) -> int | None:
    """None where the file system does not count them, or is gone."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return None
    return found.f_favail if found.f_files else None
