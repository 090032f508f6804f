"""A sweep on disk: how many points has it, and what are they?

Who needs one point of ten thousand reads `open_sweep(directory).named("17")`, and who counts them
`count_points(directory)`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hpc.config.secrets import MASK
from hpc.errors import ConfigurationError, LoadError
from hpc.files import read_regular
from hpc.run.point import Point
from hpc.run.vault import Vault

SWEEP_FILE = "sweep.json"
POINTS_FILE = "points.jsonl"
FORMAT = 2
"""1 had a whole config in every line."""


@dataclass(frozen=True)
class StoredSweep:
    """A sweep on disk, of which a point is read when it is asked for.

    Args:
        directory: The sweep's.
        lines: Of its points.jsonl, one for each point.
    """

    directory: Path
    lines: Sequence[str]

    def __len__(self) -> int:
        return len(self.lines)

    def point(self, number: int) -> Point:
        """The point of that number, from 0.

        Raises:
            LoadError: Its line is damaged.
        """
        line = self.lines[number]
        with self._damage(number):
            other = json.loads(line).get("like")
            point = Point.of_line(line) if other is None else Point.of_difference(line, self._whole(other))
            return point.revealed(self._vault)

    def named(self, name: str) -> Point:
        """The point of that name.

        Raises:
            LoadError: There is no such point, or its line is damaged.
        """
        number = int(name) if name.isascii() and name.isdigit() else 0  # points of a sweep are named by their numbers
        if number < len(self) and self.overrides_of(number)[0] == name:
            return self.point(number)
        for number in range(len(self)):
            if self.overrides_of(number)[0] == name:
                return self.point(number)
        raise no_point(self.directory, name, len(self))

    def overrides(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Every point's name and what was typed to get it, in order; configs are not looked at.

        Raises:
            LoadError: A line is damaged.
        """
        return map(self.overrides_of, range(len(self)))

    def overrides_of(self, number: int) -> tuple[str, tuple[str, ...]]:
        """The name of the point of that number, and what was typed to get it.

        Raises:
            LoadError: Its line is damaged.
        """
        with self._damage(number):
            fields = json.loads(self.lines[number])
            return fields["name"], tuple(each if isinstance(each, str) else MASK for each in fields["overrides"])

    def _whole(self, number: int) -> Point:
        if not isinstance(number, int) or not 0 <= number < len(self):
            raise ValueError(f"it is like point {number}, which there is not")
        return self._known.setdefault(number, Point.of_line(self.lines[number]))

    @cached_property
    def _vault(self) -> Vault:
        return Vault.read(self.directory)

    @cached_property
    def _known(self) -> dict[int, Point]:
        return {}

    @contextmanager
    def _damage(self, number: int) -> Iterator[None]:
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError, ImportError) as error:
            raise _damaged(self.directory / POINTS_FILE, f"line {number + 1}: {error}") from error


def open_sweep(directory: Path) -> StoredSweep:
    """Read the lines, and none of the points yet.

    Raises:
        ConfigurationError: There is no sweep there.
        LoadError: Its files are damaged.
    """
    lines = _text(directory, POINTS_FILE).splitlines()
    told = count_points(directory)
    if told != len(lines):
        raise _damaged(directory / SWEEP_FILE, f"it counts {told} points, and {POINTS_FILE} has {len(lines)}")
    return StoredSweep(directory, lines)


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
    except (ValueError, LookupError, TypeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if written not in range(1, FORMAT + 1):
        raise LoadError(f"{path} must be of format {FORMAT}, but is of {written}: another version of hpc wrote it.")
    return int(points)


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


def no_point(directory: Path, name: str, others: int) -> LoadError:
    """What is raised where a sweep has no point of that name."""
    return LoadError(f"{directory / POINTS_FILE} must hold point {name}, but has {others} others.")


def _damaged(path: Path, what: str) -> LoadError:
    text = " ".join(what.split()).rstrip(".")
    return LoadError(f"{path} is damaged ({text}): restore it, or choose another run_dir.")
