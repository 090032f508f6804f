"""What is around this process: its environment variables, which everybody else is given as a mapping; its program."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path


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


def program_name() -> str:
    """What this process runs, by its script, module or package: "train" for train.py; "run" in a notebook."""
    path = Path(getattr(sys.modules.get("__main__"), "__file__", None) or "").absolute()
    if not path.is_file():  # also what is typed into Python
        return "run"
    return path.parent.name if path.stem == "__main__" else path.stem
