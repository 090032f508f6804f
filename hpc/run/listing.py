"""Which points does a sweep on disk have, and what was typed to get each? Their configs are not looked at.

Whoever looks at thousands of points asks here, and need not wait for what configs are read with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.config.secrets import MASK
from hpc.errors import ConfigurationError, LoadError
from hpc.files import read_regular

SWEEP_FILE = "sweep.json"
POINTS_FILE = "points.jsonl"
FORMAT = 2
"""1 had a whole config in every line."""


@dataclass(frozen=True)
class Listing:
    """The points of a sweep on disk.

    Args:
        directory: The sweep's.
        lines: Of its points.jsonl, one for each point.
    """

    directory: Path
    lines: Sequence[str]

    def __len__(self) -> int:
        return len(self.lines)

    def overrides(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Every point's name and what was typed to get it, in order.

        Raises:
            LoadError: A line is damaged.
        """
        return map(self.overrides_of, range(len(self)))

    def overrides_of(self, number: int) -> tuple[str, tuple[str, ...]]:
        """The name of the point of that number, and what was typed to get it.

        Raises:
            LoadError: Its line is damaged.
        """
        try:
            fields = json.loads(self.lines[number])
            return fields["name"], tuple([each if isinstance(each, str) else MASK for each in fields["overrides"]])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise self.damaged(number, error) from error

    def damaged(self, number: int, error: Exception) -> LoadError:
        """What is raised where the line of that number is not what it should be."""
        return _damaged(self.directory / POINTS_FILE, f"line {number + 1}: {error}")


def list_points(directory: Path) -> Listing:
    """Read the lines, and look into none of them yet.

    Raises:
        ConfigurationError: There is no sweep there.
        LoadError: Its files are damaged.
    """
    told = count_points(directory)
    lines = _text(directory, POINTS_FILE).splitlines()
    if told > len(lines):
        raise _damaged(directory / SWEEP_FILE, f"it counts {told} points, and {POINTS_FILE} has {len(lines)}")
    return Listing(directory, lines[:told])  # more of them are being added


def count_points(directory: Path) -> int:
    """How many points the sweep has, as its smaller file says.

    Raises:
        ConfigurationError: There is no sweep there.
        LoadError: The file is damaged, or of another version.
    """
    path, text = directory / SWEEP_FILE, _text(directory, SWEEP_FILE)
    try:
        summary = json.loads(text)
        written, points = summary["format"], summary["points"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if written not in range(1, FORMAT + 1):
        raise LoadError(f"{path} must be of format {FORMAT}, but is of {written}: another version of hpc wrote it.")
    if not isinstance(points, int) or points < 0:
        raise _damaged(path, f"it counts {points} points")
    return points


def is_sweep(directory: Path) -> bool:
    """Whether points were frozen in this directory; sweep.json is written last."""
    return os.path.lexists(directory / SWEEP_FILE)


def _text(directory: Path, name: str) -> str:
    try:
        return read_regular(directory / name).decode()
    except OSError as error:
        raise ConfigurationError(
            f"{directory} must hold a sweep, but {name} cannot be read: {error.strerror}."
        ) from error
    except ValueError as error:  # bytes that are no text
        raise _damaged(directory / name, str(error)) from error


def _damaged(path: Path, what: str) -> LoadError:
    text = " ".join(what.split()).rstrip(".")
    return LoadError(f"{path} is damaged ({text}): restore it, or choose another run_dir.")
