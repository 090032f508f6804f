"""What may be wrong around any verb, whatever it does: where it is typed, and where its words go."""

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
