"""What one command owns: a directory, and the points frozen in it.

Two files however many points there are: sites count inodes. `points.jsonl` holds a line for each point, in order, and
is made first, by one command only; `sweep.json` says what the sweep is and is written last. A YAML edited while a job
waits changes nothing.

A line holds the resolved config, or how it differs from that of another line. Who needs one point of ten thousand reads
`open_sweep(directory).named("17")`, and who needs none of their configs `hpc.run.listing`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.config.secrets import Secrets, masked
from hpc.errors import ConfigurationError, LoadError
from hpc.files import create, flush_directory, make_directory, replace_text
from hpc.run import frozen
from hpc.run.alike import changed, differences
from hpc.run.code import Code
from hpc.run.listing import FORMAT, POINTS_FILE, SWEEP_FILE, Listing, is_sweep, list_points
from hpc.run.ownership import check_ownership
from hpc.run.secret import make_secret
from hpc.run.vault import Vault, filled_in, hidden

if TYPE_CHECKING:
    from hpc.config import Settings

ELSEWHERE = ("hardware", "cluster", "launch", "run_dir")
"""Sections that a point's signature leaves out."""
SHORT_LINE = 700
"""Bytes; a point of other choices that differs in more than these is written as a whole, for others to differ from."""


@dataclass(frozen=True)
class Point:
    """One resolved config of a sweep.

    Args:
        name: Its directory below the sweep's; "." where the point is the whole run.
        overrides: What was typed to get it.
        config: Everything, interpolations resolved.
        hydra: What Hydra knew of it, for `HydraConfig.get()`; empty where Hydra was not asked.
        checked: Its settings, where they are built already.
    """

    name: str
    overrides: tuple[str, ...]
    config: dict[Any, Any]
    hydra: Mapping[str, Any] = field(default_factory=dict)
    checked: Settings | None = field(default=None, compare=False, repr=False)

    @cached_property
    def settings(self) -> Settings:
        """The parts that hpc reads, built and checked once.

        Raises:
            ConfigurationError: They are not valid.
        """
        from hpc.config import settings_of  # deferred: omegaconf takes longer to import than `hpc status` to run

        return self.checked or settings_of(self.config)

    @cached_property
    def signature(self) -> str:
        """Alike for points that compute the same, wherever they lie and run, on however much."""
        computed = {str(key): value for key, value in self.config.items() if key not in ELSEWHERE}
        written = json.dumps(json.loads(frozen.dumps(computed)), sort_keys=True)
        return hashlib.sha256(written.encode()).hexdigest()[:16]

    @cached_property
    def secrets(self) -> Secrets:
        """What of it is nobody else's to read."""
        return Secrets.of(self.config)

    @classmethod
    def of_line(cls, line: str) -> Point:
        """What `line` was made of.

        Raises:
            ValueError, LookupError, TypeError, AttributeError, ImportError: It is no such line.
        """
        fields = frozen.loads(line)
        return cls._of(fields, fields["config"], fields.get("hydra", {}))

    @classmethod
    def of_difference(cls, line: str, other: Point) -> Point:
        """What `line` was made of, where it says how it differs from another point.

        Raises:
            ValueError, LookupError, TypeError, AttributeError, ImportError: It is no such line.
        """
        fields = frozen.loads(line)
        hydra = changed(dict(other.hydra), fields.get("hydra", []))
        return cls._of(fields, changed(other.config, fields["config"]), hydra)

    @classmethod
    def _of(cls, fields: Mapping[str, Any], config: Any, hydra: Any) -> Point:
        point = cls(fields["name"], tuple(fields["overrides"]), config, hydra)
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
        config, hydra, overrides = hidden(vault, self.secrets, self.config, self.hydra, self.overrides)
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

    def difference(self, number: int, other: Point) -> str:
        """What points.jsonl holds of it where it is much like another point.

        Args:
            number: Of the other point's line, from 0.
            other: The other point, whose own line is whole.

        Raises:
            ConfigurationError: A value is of a kind that cannot be written down.
        """
        parts = {"config": (other.config, self.config), "hydra": (other.hydra, self.hydra)}
        written = {part: list(differences(*both)) for part, both in parts.items()}
        fields = {"name": self.name, "overrides": self.overrides, "like": number, **written}
        return frozen.dumps(fields) + "\n"


@dataclass(frozen=True)
class Sweep:
    """A directory and its points, in order; at a submission also the code that they run."""

    directory: Path
    points: tuple[Point, ...]
    code: Code | None = None

    def point(self, name: str) -> Point:
        """The point of that name.

        Raises:
            LoadError: There is no such point.
        """
        for point in self.points:
            if point.name == name:
                return point
        raise _no_point(self.directory, name, len(self.points))

    @cached_property
    def lines(self) -> Sequence[str]:
        """What points.jsonl holds.

        Raises:
            ConfigurationError: A value is of a kind that cannot be written down.
        """
        return list(_lines([point.hidden(self.vault) for point in self.points]))

    @cached_property
    def vault(self) -> Vault:
        """The secrets that the lines have names for; filled by making the lines."""
        return Vault()

    def point_directory(self, name: str) -> Path:
        """Where the point's journal, metrics and checkpoints lie."""
        return self.directory / name

    def write(self) -> list[Path]:
        """Create the directory and freeze the points in it. Of several commands at once exactly one succeeds.

        Returns:
            What was made, in this order: directories from the top down, then the files.

        Raises:
            ConfigurationError: The directory holds a sweep already, or cannot be written; nothing was.
        """
        lines = "".join(self.lines)
        self._check_ownership()
        with _explained(self.directory), _taken_back() as made:
            made.extend([] if self.directory.is_dir() else make_directory(self.directory))
            self._check_ownership()  # others may have been faster than we where everybody may write
            self._claim(lines, made)
            made.extend(self.vault.write(self.directory))
            if self.points[0].name != ".":  # a run that nobody submits has ranks which find its directory too late
                made.append(make_secret(self.directory))
            self._write_code(made)
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
        lines = "".join(self.lines)
        with _explained(self.directory):
            self.vault.write(self.directory, besides=Vault.read(self.directory))
            replace_text(self.directory / POINTS_FILE, lines)
            replace_text(self.directory / SWEEP_FILE, self._summary())
            self.vault.write(self.directory)
            self._write_code([])

    def _write_code(self, made: list[Path]) -> None:
        if self.code is not None:
            self.code.write(self.directory, made)

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
        from hpc.config import forbidden_changes  # deferred, as above

        both = ((masked(old.config), masked(new.config)) for old, new in pairs)  # a secret may be a new one
        return sorted({key for old, new in both for key in forbidden_changes(old, new)})

    def _summary(self) -> str:
        return json.dumps({"format": FORMAT, "points": len(self.points)}) + "\n"


class StoredSweep(Listing):
    """A sweep on disk, of which a point is read when it is asked for."""

    def point(self, number: int) -> Point:
        """The point of that number, from 0.

        Raises:
            LoadError: Its line is damaged.
        """
        line = self.lines[number]
        try:
            other = json.loads(line).get("like")
            point = Point.of_line(line) if other is None else Point.of_difference(line, self._whole(other))
            return point.revealed(self._vault)
        except (ValueError, LookupError, TypeError, AttributeError, ImportError) as error:
            raise self.damaged(number, error) from error

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
        raise _no_point(self.directory, name, len(self))

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


def open_sweep(directory: Path) -> StoredSweep:
    """Read the lines, and none of the points yet.

    Raises:
        ConfigurationError: There is no sweep there.
        LoadError: Its files are damaged.
    """
    return StoredSweep(directory, list_points(directory).lines)


def load_sweep(directory: Path) -> Sweep:
    """Read all points back.

    Raises:
        ConfigurationError: There is no sweep there.
        LoadError: Its files are damaged.
    """
    stored = open_sweep(directory)
    return Sweep(directory, tuple(map(stored.point, range(len(stored)))))


def remove_made(made: list[Path]) -> None:
    """Remove what `Sweep.write` made. A directory stays where something else has been put into it."""
    for path in reversed(made):
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


def _lines(points: Sequence[Point]) -> Iterator[str]:
    """Whole lines for the first point, and for the first of other choices of groups that differs in much."""
    whole: dict[str, int] = {}
    for number, point in enumerate(points):
        choices = repr(point.hydra.get("runtime", {}).get("choices"))
        other = whole.get(choices, 0)
        line = point.difference(other, points[other]) if number else point.line()
        if number and choices not in whole and len(line) > SHORT_LINE:
            other, line = number, point.line()
        whole.setdefault(choices, other)
        yield line


def _no_point(directory: Path, name: str, others: int) -> LoadError:
    return LoadError(f"{directory / POINTS_FILE} must hold point {name}, but has {others} others.")


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
