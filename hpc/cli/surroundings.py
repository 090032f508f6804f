"""What may be wrong around any verb, whatever it does: where it is typed, what it may look at, where its words go."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from hpc.errors import ConfigurationError

WORDS = {
    errno.ENOENT: "The directory that this is typed in must be there, but was removed: change to another one.",
    errno.ENOSPC: "What is printed must have room where it is written, but the device is full.",
}


@contextmanager
def readable() -> Iterator[None]:
    """Explain what a verb that runs none of the user's code may not look at.

    Raises:
        ConfigurationError: It may not.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise ConfigurationError(f"{error.filename} must be open to you, but is not: {error.strerror}.") from error


@contextmanager
def surroundings() -> Iterator[None]:
    """Explain errors of no file: those of the current directory and of standard output.

    Raises:
        ConfigurationError: One of them cannot be used.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in WORDS:
            raise
        raise ConfigurationError(WORDS[error.errno]) from error
