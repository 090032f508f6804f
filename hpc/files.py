"""How are files made, replaced, added to and read, so that nobody else can steer where the bytes go?

What is made gets modes that no umask widens: others may read as the umask says, and write nothing. A run directory may
have come from somebody else (a download, an archive), or others may have put something into it: names in it are never
followed through a link, and a pipe is never waited for.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

FILE_MODE, PRIVATE_MODE = 0o644, 0o600
DIRECTORY_MODE, PRIVATE_DIRECTORY_MODE = 0o755, 0o700
WRITTEN_BY_OTHERS = 0o022
"""The bits that no file of ours has, whatever the umask is."""
HERE_ONLY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Never through a link, never waiting for a pipe's other end."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems without locks answer."""
A_LINK, NOT_REGULAR = "it is a link", "it is not a regular file"


def replace_text(path: Path, text: str, mode: int = FILE_MODE) -> None:
    """All of it or nothing, and for good; see `replace_bytes`."""
    replace_bytes(path, text.encode(), mode)


def replace_bytes(path: Path, data: bytes, mode: int = FILE_MODE) -> None:
    """All of it or nothing, also after a power cut. A link of that name is replaced, and not what it points to.

    Args:
        path: Its directory must exist.
        data: The new content.
        mode: Of the new file, less the umask.

    Raises:
        OSError: The file system says no.
    """
    with replacing(path, mode) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, mode: int = FILE_MODE, durable: bool = True) -> Iterator[IO[bytes]]:
    """A new file that becomes `path` in one step when it is left, and vanishes when it is left by an exception.

    Its name until then is a random one, so that nobody can have put a link there.

    Args:
        path: Its directory must exist.
        mode: Of the new file, less the umask.
        durable: Wait for the disk, so that a power cut leaves the old content or the new.

    Raises:
        OSError: The file system says no.
    """
    temporary = _temporary(path)
    try:
        with create(temporary, mode) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        flush_directory(path.parent)


def create(path: Path, mode: int = FILE_MODE) -> IO[bytes]:
    """A file that was not there.

    Raises:
        FileExistsError: Something of that name is there, be it a link that points nowhere.
        OSError: The file system says no.
    """
    return os.fdopen(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")


def open_to_append(path: Path, mode: int = FILE_MODE) -> IO[bytes]:
    """A file to add to, made where it is missing.

    Raises:
        OSError: The file system says no, or there is a link, a pipe, or a file that has other names as well.
    """
    file = os.fdopen(open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode), "ab")
    if os.fstat(file.fileno()).st_nlink > 1:  # a hard link: the bytes would go into a file that lies elsewhere, too
        file.close()
        raise OSError(errno.EMLINK, "it is one of several names of one file", str(path))
    return file


def append_text(path: Path, text: str, mode: int = FILE_MODE) -> None:
    """Add to the end of a file in one write; see `open_to_append`."""
    with open_to_append(path, mode) as file:
        file.write(text.encode())


def read_regular(path: str | Path) -> bytes:
    """The content of a file of a run directory.

    Raises:
        OSError: It is missing or cannot be read, or it is a link, a pipe or a device.
    """
    with open_to_read(path) as file:
        return file.read()


def open_to_read(path: str | Path) -> IO[bytes]:
    """A file of a run directory, to read a part of.

    Raises:
        OSError: As `read_regular`.
    """
    return os.fdopen(open_regular(path, os.O_RDONLY), "rb", buffering=0)  # read at once: a buffer would be in the way


def make_directory(path: Path, mode: int = DIRECTORY_MODE) -> list[Path]:
    """A directory, and those above it that are missing.

    Args:
        path: May be there already, but not as a link.
        mode: Of the last one, less the umask; those above it get the usual one.

    Returns:
        What was made, from the top down.

    Raises:
        OSError: The file system says no, or something else has that name.
    """
    made: list[Path] = []
    for each in reversed([path, *(parent for parent in path.parents if not parent.exists())]):
        with suppress(FileExistsError):  # it is there, or another process was faster
            each.mkdir(mode if each == path else DIRECTORY_MODE)
            made.append(each)
    if path.is_symlink():
        raise OSError(errno.ELOOP, A_LINK, str(path))
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return made


def remove_made(made: list[Path]) -> None:
    """Remove files and directories, the last one first. A directory stays where something else was put into it."""
    for path in reversed(made):
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def narrow_umask() -> Iterator[None]:
    """While other packages write into a run directory: their files, too, are written by nobody else."""
    before = os.umask(WRITTEN_BY_OTHERS)
    os.umask(before | WRITTEN_BY_OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def flush_directory(directory: Path) -> None:
    """Make what a directory lists durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_tail(path: str | Path, count: int) -> bytes:
    """The last bytes of a file.

    Raises:
        OSError: As `read_regular`.
    """
    with open_to_read(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - count))
        return file.read()


def open_regular(path: str | Path, flags: int, mode: int = FILE_MODE) -> int:
    """A descriptor of a regular file, for what none of the functions above does.

    Args:
        path: Never followed where it is a link.
        flags: As os.open takes them.
        mode: Of a file that is made, less the umask.

    Raises:
        OSError: The file system says no, or there is a link, a pipe or a device.
    """
    try:
        descriptor = os.open(path, flags | HERE_ONLY, mode)
    except OSError as error:
        told = {errno.ELOOP: A_LINK, errno.ENXIO: NOT_REGULAR}.get(error.errno or 0)
        raise (OSError(error.errno, told, str(path)) if told else error) from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, NOT_REGULAR, str(path))


def is_locked(descriptor: int, without: bool = True) -> bool:
    """Whether the lock on a file is ours now. The kernel gives it back when the last process with the file has ended.

    Args:
        descriptor: Open for writing, as NFS asks.
        without: What is said on a file system that has no locks.

    Raises:
        OSError: The file system says no.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return without
    return True


def is_same(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _temporary(path: Path) -> Path:
    """A name that nobody can guess."""
    return path.with_name(f"{path.name}.{os.urandom(8).hex()}.tmp")
