"""What one command owns: a directory, and the points frozen in it.

Two files however many points there are: sites count inodes. `sweep.json` says what the sweep is, `points.jsonl`
holds one resolved config per line. A YAML edited while a job waits changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc.errors import ConfigurationError
from hpc.files import replace_text

SWEEP_FILE = "sweep.json"
POINTS_FILE = "points.jsonl"
FORMAT = 1
MAY_CHANGE = ("hardware", "cluster", "launch", "strategy", "runtime", "checkpoint")
"""A run may go on elsewhere, on more or fewer nodes, divided in another way; what else changes makes another run."""
MUST_STAY = ("strategy.precision", "strategy.accumulation_steps", "runtime.deterministic")
"""Of those sections, what the numbers depend on."""


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
        if is_sweep(self.directory):
            raise ConfigurationError(
                f"run_dir must be a new directory, but {self.directory} holds a sweep already: choose another run_dir."
            )
        self._write()

    def write_or_continue(self) -> None:
        """Create the directory, or go on with one that holds these points.

        Raises:
            ConfigurationError: It holds other points, or cannot be written.
        """
        changed = self._changed_keys() if is_sweep(self.directory) else []
        if changed:
            raise ConfigurationError(
                f"run_dir={self.directory} must be resumed with the config it was started with, "
                f"but {', '.join(changed)} changed: change it back, or choose another run_dir."
            )
        self._write()

    def _changed_keys(self) -> list[str]:
        frozen = load_sweep(self.directory).points
        if len(frozen) != len(self.points):
            return ["the number of points"]
        pairs = zip(frozen, self.points, strict=True)
        keys = {key for old, new in pairs for key in changed_keys(old.config, new.config)}
        return sorted(key for key in keys if key in MUST_STAY or key.partition(".")[0] not in MAY_CHANGE)

    def _write(self) -> None:
        summary = {"format": FORMAT, "points": len(self.points)}
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            replace_text(
                self.directory / POINTS_FILE, "".join(json.dumps(asdict(point)) + "\n" for point in self.points)
            )
            replace_text(self.directory / SWEEP_FILE, json.dumps(summary) + "\n")
        except OSError as error:
            raise ConfigurationError(
                f"run_dir must be a writable directory, but {self.directory} is not: {error.strerror}."
            ) from error


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
    before, after = dict(leaves(old)), dict(leaves(new))
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a config under its dotted key; a section without keys is a value too."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _point(fields: dict[str, Any]) -> Point:
    return Point(fields["name"], tuple(fields["overrides"]), fields["config"])
