"""Where this process's environment variables are read; everybody else is given a mapping."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager


def process_environ() -> MutableMapping[str, str]:
    """As they are now: inside `without` they lack what is left out there."""
    return os.environ


def for_child(**changes: str) -> dict[str, str]:
    """This process's environment variables with some changes, for a process that it starts."""
    return {**os.environ, **changes}


@contextmanager
def without(names: Iterable[str]) -> Iterator[None]:
    """Leave variables out of this process for a while, for a library that starts processes by itself."""
    before = dict(os.environ)
    try:
        for name in names:
            os.environ.pop(name, None)
        yield
    finally:
        os.environ.update(before)
