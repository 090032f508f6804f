"""What one command owns: a directory, and the points frozen in it.

Two files however many points there are: sites count inodes. `sweep.json` says what the sweep is, `points.jsonl`
holds one resolved config per line. A YAML edited while a job waits changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc.errors import ConfigurationError

SWEEP_FILE = "sweep.json"
POINTS_FILE = "points.jsonl"
FORMAT = 1


@dataclass(frozen=True)
class Point:
    """One resolved config of a sweep.

    Args:
        name: Its directory below the sweep's; "." where the point is the whole run.
        overrides: What was typed to get it.
        config: Everything, interpolations resolved.
    """

    name: str
    overrides: tuple[str, ...]
    config: dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """A directory and its points, in order."""

    directory: Path
    points: tuple[Point, ...]

    def point(self, name: str) -> Point:
        """The point of that name."""
        return next(point for point in self.points if point.name == name)

    def point_directory(self, name: str) -> Path:
        """Where the point's journal, metrics and checkpoints lie."""
        return self.directory / name

    def write(self) -> None:
        """Create the directory and freeze the points in it.

        Raises:
            ConfigurationError: The directory holds a sweep already, or cannot be written.
        """
        _make_directory(self.directory)
        with (self.directory / POINTS_FILE).open("x") as file:
            file.writelines(json.dumps(asdict(point)) + "\n" for point in self.points)
        summary = {"format": FORMAT, "points": len(self.points)}
        (self.directory / SWEEP_FILE).write_text(json.dumps(summary) + "\n")


def load_sweep(directory: Path) -> Sweep:
    """Read the points back.

    Raises:
        ConfigurationError: There is no sweep there.
    """
    try:
        lines = (directory / POINTS_FILE).read_text().splitlines()
    except OSError as error:
        raise ConfigurationError(
            f"{directory} must hold a sweep, but {POINTS_FILE} cannot be read: {error.strerror}."
        ) from error
    return Sweep(directory, tuple(_point(json.loads(line)) for line in lines))


def is_sweep(directory: Path) -> bool:
    """Whether points were frozen in this directory; sweep.json is written last."""
    return (directory / SWEEP_FILE).exists()


def changed_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Dotted keys whose values differ, in order: `optimizer.lr`."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _point(fields: dict[str, Any]) -> Point:
    return Point(fields["name"], tuple(fields["overrides"]), fields["config"])


def _make_directory(directory: Path) -> None:
    if is_sweep(directory):
        raise ConfigurationError(
            f"run_dir must be a new directory, but {directory} holds a sweep already: choose another run_dir."
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"run_dir must be a writable directory, but {directory} is not: {error.strerror}."
        ) from error
