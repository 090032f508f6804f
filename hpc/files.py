"""How is a file replaced? By a whole one, so that whoever reads it sees the old content or the new, never a part."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


def replace_text(path: Path, text: str) -> None:
    """All of it or nothing, and for good; see `replace_bytes`."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, data: bytes) -> None:
    """All of it or nothing, also after a power cut.

    Raises:
        OSError: The file system says no.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    flush_directory(path.parent)


def flush_directory(directory: Path) -> None:
    """Make what a directory lists durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_loosely(path: Path, data: bytes) -> None:
    """All of it or nothing, but after a power cut perhaps nothing: for what is told again in a moment.

    Raises:
        OSError: The file system says no.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def append_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Add to the end of a file in one write, never through a link or into a pipe.

    Args:
        path: Made where it is missing.
        text: Whole lines.
        mode: Of a file that is made.

    Raises:
        OSError: The file system says no.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def read_regular(path: str | Path) -> bytes:
    """The content of a file, without waiting for a pipe's other end.

    Raises:
        OSError: It is missing, cannot be read, or is no regular file.
    """
    with _opened(path) as file:
        return file.read()


def read_tail(path: str | Path, count: int) -> bytes:
    """The last bytes of a file.

    Raises:
        OSError: As `read_regular`.
    """
    with _opened(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - count))
        return file.read()


def _opened(path: str | Path) -> BinaryIO:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(22, "it is not a regular file", str(path))
    return os.fdopen(descriptor, "rb")
