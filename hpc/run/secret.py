"""Which secret do the ranks of a world share, that no other user of the machine or the network has?

The first of these:

    HPC_SECRET     an environment variable: whoever sets it says that every rank has the same
    secret         in the sweep's directory, where a command has submitted the run: made with the sweep
    hpc/secret     in $XDG_CONFIG_HOME or ~/.config, for all other runs of this user: made when it is first needed

A file counts only where it belongs to this user and nobody else can read it (mode 0600).
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpc.errors import ConfigurationError
from hpc.files import PRIVATE_MODE, create
from hpc.world import World

VARIABLE = "HPC_SECRET"
SHORTEST = 16
"""Characters; `openssl rand -hex 16` prints 32."""
FILE = "secret"
WAIT_SECONDS = 5.0
"""How long a file that another rank is just making may be incomplete."""


@dataclass(frozen=True)
class Secret:
    """What proves ranks to each other.

    Args:
        value: Nobody but the ranks may know it.
        source: Where it came from, for people.
    """

    value: bytes = field(repr=False)
    source: str

    @property
    def advice(self) -> str:
        """What to do where another rank seems to have another one."""
        return (
            f"every rank must have the same secret, and this one took it from {self.source}: where the nodes share no "
            f"home directory, export {VARIABLE} with the same random text for all ranks; else another program on this "
            "machine or network interferes (see docs/security.md)"
        )


def shared_secret(world: World, environ: Mapping[str, str], sweep: Path | None = None) -> Secret:
    """The secret of this world's ranks; a world of one needs none that lasts.

    Args:
        world: This rank.
        environ: Where HPC_SECRET and XDG_CONFIG_HOME may be.
        sweep: The directory of the sweep whose job this is; None where nobody has submitted one.

    Raises:
        ConfigurationError: HPC_SECRET is too short, or a file is not this user's alone or cannot be made.
    """
    if world.world_size == 1:
        return Secret(secrets.token_bytes(), "this process")
    told = environ.get(VARIABLE, "")
    if told:
        if len(told) < SHORTEST:
            raise ConfigurationError(
                f"{VARIABLE} must have at least {SHORTEST} characters, but has {len(told)}: take random ones, such as "
                "`openssl rand -hex 16` prints."
            )
        return Secret(told.encode(), VARIABLE)
    if sweep is not None and os.path.lexists(sweep / FILE):  # sweeps of older versions have none
        return Secret(_read(sweep / FILE), str(sweep / FILE))
    path = _of_user(environ)
    return Secret(_read_or_make(path), str(path))


def make_secret(directory: Path) -> Path:
    """Make a sweep's secret; returns the file. One that a killed command has left is replaced.

    Raises:
        ConfigurationError: The file system lets others read it.
        OSError: It cannot be made, or something else has its name.
    """
    path = directory / FILE
    if os.path.lexists(path) and re.fullmatch(rb"[0-9a-f]{0,64}\n?", _content(path)):
        path.unlink()
    _make(path)
    try:
        _read(path)
    except ConfigurationError:
        path.unlink()
        raise
    return path


def _of_user(environ: Mapping[str, str]) -> Path:
    """XDG's base directory specification 0.8: a relative path there does not count."""
    told = Path(environ.get("XDG_CONFIG_HOME", ""))
    try:
        return (told if told.is_absolute() else Path.home() / ".config") / "hpc" / FILE
    except RuntimeError as error:
        raise ConfigurationError(
            f"{VARIABLE} must be set where the user has no home directory: export the same random text for all ranks."
        ) from error


def _read_or_make(path: Path) -> bytes:
    try:
        if not os.path.lexists(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make(path)
    except FileExistsError:  # another rank was faster
        pass
    except OSError as error:
        raise ConfigurationError(
            f"{path} must be a file that ranks prove themselves with, but cannot be made ({error.strerror}): make "
            f"its directory writable, or export {VARIABLE} with the same random text for all ranks."
        ) from error
    return _read(path)


def _make(path: Path) -> None:
    """Of several processes exactly one makes it."""
    with create(path, PRIVATE_MODE) as file:
        os.fchmod(file.fileno(), PRIVATE_MODE)  # whatever the umask and the directory's defaults say
        file.write(f"{secrets.token_hex()}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> bytes:
    deadline = time.monotonic() + WAIT_SECONDS
    while not re.fullmatch(rb"[0-9a-f]{64}\n", content := _content(path)):
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"{path} must hold 64 hexadecimal digits and the end of a line, but does not: remove it, and start "
                f"again, or export {VARIABLE} with the same random text for all ranks."
            )
        time.sleep(0.05)
    return content.strip()


def _content(path: Path) -> bytes:
    """What the file holds; opened first and checked then, so that it cannot be exchanged in between."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not block
    except OSError as error:
        raise ConfigurationError(
            f"{path} must be a file that you can read, but is not ({error.strerror}): remove it, or export {VARIABLE} "
            "with the same random text for all ranks."
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise ConfigurationError(
                f"{path} must be a regular file of user {os.getuid()} that nobody else can read (0600), but is of "
                f"user {status.st_uid} and has mode {stat.filemode(status.st_mode)}: remove it, and start again, or "
                f"export {VARIABLE} with the same random text for all ranks."
            )
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)
