"""What one command owns: a directory, and the points frozen in it.

Two files however many points there are: sites count inodes. `points.jsonl` holds one resolved config per line and
is made first, by one command only; `sweep.json` says what the sweep is and is written last. A YAML edited while a job
waits changes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hpc.config import Settings, forbidden_changes, settings_of
from hpc.config.secrets import masked
from hpc.errors import ConfigurationError, LoadError
from hpc.files import create, flush_directory, make_directory, read_regular, replace_text
from hpc.run import frozen
from hpc.run.ownership import check_ownership
from hpc.run.secrets import Vault, filled_in, hidden

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
        hydra: What Hydra knew of it, for `HydraConfig.get()`; empty where Hydra was not asked.
    """

    name: str
    overrides: tuple[str, ...]
    config: dict[Any, Any]
    hydra: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Settings:
        """The parts that hpc reads, built and checked once.

        Raises:
            ConfigurationError: They are not valid.
        """
        return settings_of(self.config)

    @classmethod
    def of_line(cls, line: str) -> Point:
        """What `line` was made of.

        Raises:
            ValueError, LookupError, TypeError, AttributeError, ImportError: It is no such line.
        """
        fields = frozen.loads(line)
        point = cls(fields["name"], tuple(fields["overrides"]), fields["config"], fields.get("hydra", {}))
        if not isinstance(point.name, str) or not isinstance(point.config, dict) or not isinstance(point.hydra, dict):
            raise ValueError("it is not a point")
        return point

    def line(self) -> str:
        """What points.jsonl holds of it.

        Raises:
            ConfigurationError: A value is of a kind that cannot be written down.
        """
        fields = {"name": self.name, "overrides": self.overrides, "config": self.config}
        return frozen.dumps({**fields, "hydra": self.hydra} if self.hydra else fields) + "\n"

    def hidden(self, vault: Vault) -> Point:
        """The same for everybody to read: its secrets go into the vault."""
        config, hydra, overrides = hidden(vault, self.config, self.hydra, self.overrides)
        return replace(self, config=config, hydra=hydra, overrides=overrides)

    def revealed(self, vault: Vault) -> Point:
        """The same as it was before it was hidden."""
        config, hydra, overrides = map(vault.reveal, (self.config, self.hydra, self.overrides))
        return replace(self, config=config, hydra=hydra, overrides=overrides)

    def filled_in(self, other: Point) -> Point:
        """The same with the secrets of another point, which is like it.

        Raises:
            ConfigurationError: The other point lacks one.
        """
        try:
            config, hydra = filled_in(self.config, other.config), filled_in(self.hydra, other.hydra)
            return replace(self, config=config, hydra=hydra, overrides=filled_in(self.overrides, other.overrides))
        except (LookupError, TypeError) as error:
            raise ConfigurationError(
                f"All ranks must be started with the same config, but this one has no {error.args[0]}."
            ) from error


@dataclass(frozen=True)
class Sweep:
    """A directory and its points, in order."""

    directory: Path
    points: tuple[Point, ...]

    def point(self, name: str) -> Point:
        """The point of that name.

        Raises:
            LoadError: There is no such point.
        """
        for point in self.points:
            if point.name == name:
                return point
        raise LoadError(f"{self.directory / POINTS_FILE} must hold point {name}, but has {len(self.points)} others.")

    def point_directory(self, name: str) -> Path:
        """Where the point's journal, metrics and checkpoints lie."""
        return self.directory / name

    def write(self) -> list[Path]:
        """Create the directory and freeze the points in it. Of several commands at once exactly one succeeds.

        Returns:
            What was made, in this order: directories from the top down, then the two files.

        Raises:
            ConfigurationError: The directory holds a sweep already, or cannot be written; nothing was.
        """
        vault = Vault()
        lines = self._lines(vault)
        self._check_ownership()
        with _explained(self.directory), _taken_back() as made:
            made.extend([] if self.directory.is_dir() else make_directory(self.directory))
            self._check_ownership()  # others may have been faster than we where everybody may write
            self._claim(lines, made)
            made.extend(vault.write(self.directory))
            replace_text(self.directory / SWEEP_FILE, self._summary())
            made.append(self.directory / SWEEP_FILE)
        return made

    def write_or_continue(self) -> None:
        """Create the directory, or go on with one that holds these points.

        Raises:
            ConfigurationError: It holds other points, or cannot be written.
            LoadError: The points that it holds cannot be read.
        """
        if not is_sweep(self.directory):
            self.write()
            return
        self._check_ownership()
        changed = self._changed_keys()
        if changed:
            raise ConfigurationError(
                f"run_dir={self.directory} must be resumed with the config it was started with, "
                f"but {', '.join(changed)} changed: change it back, or choose another run_dir."
            )
        vault = Vault.read(self.directory)
        lines = self._lines(vault)
        with _explained(self.directory):
            vault.write(self.directory)
            replace_text(self.directory / POINTS_FILE, lines)

    def _check_ownership(self) -> None:
        check_ownership(self.directory, self.points[0].settings.cluster.run_dir_writers)

    def _claim(self, lines: str, made: list[Path]) -> None:
        path = self.directory / POINTS_FILE
        try:
            with create(path) as file:
                made.append(path)
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            raise ConfigurationError(
                f"run_dir must be a new directory, but {self.directory} holds a sweep already: choose another run_dir."
            ) from None
        flush_directory(self.directory)

    def _changed_keys(self) -> list[str]:
        before = load_sweep(self.directory).points
        if len(before) != len(self.points):
            return ["the number of points"]
        pairs = zip(before, self.points, strict=True)
        both = ((masked(old.config), masked(new.config)) for old, new in pairs)  # a secret may be a new one
        return sorted({key for old, new in both for key in forbidden_changes(old, new)})

    def _lines(self, vault: Vault) -> str:
        return "".join(point.hidden(vault).line() for point in self.points)

    def _summary(self) -> str:
        return json.dumps({"format": FORMAT, "points": len(self.points)}) + "\n"


def load_sweep(directory: Path) -> Sweep:
    """Read the points back.

    Raises:
        ConfigurationError: There is no sweep there.
        LoadError: Its files are damaged.
    """
    try:
        lines = read_regular(directory / POINTS_FILE).decode().splitlines()
        summary = read_regular(directory / SWEEP_FILE).decode()
    except OSError as error:
        name = Path(str(error.filename)).name
        raise ConfigurationError(
            f"{directory} must hold a sweep, but {name} cannot be read: {error.strerror}."
        ) from error
    except ValueError as error:  # bytes that are no text
        raise _damaged(directory / POINTS_FILE, str(error)) from error
    points = tuple(_point(directory / POINTS_FILE, number, line) for number, line in enumerate(lines, start=1))
    _check_summary(directory / SWEEP_FILE, summary, len(points))
    vault = Vault.read(directory)
    return Sweep(directory, tuple(point.revealed(vault) for point in points))


def is_sweep(directory: Path) -> bool:
    """Whether points were frozen in this directory; sweep.json is written last."""
    return os.path.lexists(directory / SWEEP_FILE)


def remove_made(made: list[Path]) -> None:
    """Remove what `Sweep.write` made. A directory stays where something else has been put into it."""
    for path in reversed(made):
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


def _point(path: Path, number: int, line: str) -> Point:
    try:
        return Point.of_line(line)
    except (ValueError, LookupError, TypeError, AttributeError, ImportError) as error:
        raise _damaged(path, f"line {number}: {error}") from error


def _check_summary(path: Path, text: str, points: int) -> None:
    try:
        summary = json.loads(text)
        told = (summary["format"], summary["points"])
    except (ValueError, LookupError, TypeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if told[0] != FORMAT:
        raise LoadError(f"{path} must be of format {FORMAT}, but is of {told[0]}: another version of hpc wrote it.")
    if told[1] != points:
        raise _damaged(path, f"it counts {told[1]} points, and {POINTS_FILE} has {points}")


def _damaged(path: Path, what: str) -> LoadError:
    text = " ".join(what.split()).rstrip(".")
    return LoadError(f"{path} is damaged ({text}): restore it, or choose another run_dir.")


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"run_dir must be a writable directory, but {directory} is not: {error.strerror}."
        ) from error


@contextmanager
def _taken_back() -> Iterator[list[Path]]:
    """A list of what is made; all of it is removed again where something fails."""
    made: list[Path] = []
    try:
        yield made
    except BaseException:
        remove_made(made)
        raise
