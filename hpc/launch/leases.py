"""Which GPUs of this machine does a point have to itself? A lock on a file for each says it, for all sweeps of a user.

The locked file is handed to the process that watches over the point's ranks. So the lease lasts as long as that process
does, and the kernel takes it back however the process ends.

The files lie in /tmp, and neither in XDG_RUNTIME_DIR nor in TMPDIR: the first is removed when its user logs out, while
a queue that left its terminal still runs, and both differ between two sessions of one user. systemd-tmpfiles leaves
locked files alone. Two containers that do not share /tmp do not see each other's leases.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.errors import ConfigurationError
from hpc.files import PRIVATE_MODE, open_regular

PLACE = "HPC_LEASES"
"""Names another directory for the locks."""


@dataclass(frozen=True)
class Lease:
    """Some GPUs, and the locks on them.

    Args:
        gpus: Their names.
        descriptors: Of the locked files.
    """

    gpus: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()

    def hand_over(self) -> None:
        """Another process has the descriptors too, and is alone with the lease from now on."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def lease(names: Sequence[str], count: int, directory: Path) -> Lease | None:
    """Take so many of these GPUs that nobody has; None where too few are free.

    Args:
        names: Of GPUs that will do.
        count: How many.
        directory: See `lease_directory`.

    Raises:
        OSError: A lock can neither be taken nor is somebody else's.
    """
    taken: list[tuple[str, int]] = []
    for name in names if count else ():
        descriptor = _locked(directory / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.lock")
        if descriptor is not None:
            taken.append((name, descriptor))
        if len(taken) == count:
            break
    found = Lease(tuple(name for name, _ in taken), tuple(descriptor for _, descriptor in taken))
    if len(taken) < count:
        found.hand_over()  # to nobody
        return None
    return found


def lease_directory(environ: Mapping[str, str]) -> Path:
    """Where this user's leases lie on this machine; it is made where it is missing.

    Raises:
        ConfigurationError: It belongs to somebody else, or cannot be made.
    """
    directory = Path(environ.get(PLACE) or f"/tmp/hpc-{os.getuid()}")
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise ConfigurationError(
            f"{PLACE} must name a directory where GPUs can be leased, but {directory} cannot be made: {error.strerror}."
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise ConfigurationError(
            f"{directory} must be a directory that only you can write, because it says which GPUs are yours, but is "
            f"not: remove it, or name another one with {PLACE}."
        )
    return directory


def _locked(path: Path) -> int | None:
    """A descriptor of the file with the lock on it; None while somebody else has it."""
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT, PRIVATE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
