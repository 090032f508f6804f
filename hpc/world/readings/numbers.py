"""How is a number read from a variable, and what is a world of one?"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from hpc.errors import WorldError
from hpc.world.world import World

Environ = Mapping[str, str]

LOOPBACK = ("127.0.0.1",)
"""The hosts of a world that stays on one machine."""


def count(environ: Environ, name: str, at_least: int = 0) -> int:
    """A whole number.

    Raises:
        WorldError: The value is not a whole number, or is too small.
    """
    text = environ[name].strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) >= at_least):
        raise WorldError(f"{name} must be a whole number from {at_least} up, but is {text!r}: correct or unset it.")
    return int(text)


def index(environ: Environ, name: str, size: int, size_name: str) -> int:
    """A whole number from 0 to size - 1.

    Raises:
        WorldError: The value is not an integer in [0, size).
    """
    number = count(environ, name)
    if number >= size:
        raise WorldError(f"{name} must be below {size_name}, which is {size}, but is {number}: correct one of the two.")
    return number


def part(environ: Environ, name: str, total: int, total_name: str) -> int:
    """A whole number from 1 to `total`.

    Raises:
        WorldError: The value is not an integer in [1, total].
    """
    size = count(environ, name, 1)
    if size > total:
        raise WorldError(
            f"{name} must be at most {total_name}, which is {total}, but is {size}: correct one of the two."
        )
    return size


def is_loopback(host: str) -> bool:
    """Whether a name or address never leaves this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def master(environ: Environ) -> tuple[str, int]:
    """Address and port of the store, from MASTER_ADDR and MASTER_PORT.

    Raises:
        WorldError: MASTER_PORT is not a port number.
    """
    return environ["MASTER_ADDR"], part(environ, "MASTER_PORT", 65535, "the highest port")


def alone(source: str, job: str, attempt: int = 0) -> World:
    """A world of one."""
    return World(0, 1, 0, 1, 0, 1, LOOPBACK, source, job, attempt)
