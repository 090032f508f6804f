"""What one command owns: a directory, and the points frozen in it.

Two files however many points there are: sites count inodes. `points.jsonl` holds a line for each point, in order, and
is made first, by one command only; `sweep.json` says what the sweep is and is written last. A YAML edited while a job
waits changes nothing.

A line holds the resolved config, or how it differs from that of another line; see `hpc.run.stored` for who reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from hpc.config.secrets import masked
from hpc.errors import ConfigurationError
from hpc.failpoints import failpoint
from hpc.files import flush_directory, is_locked, is_same, make_directory, open_regular, remove_made, replace_text
from hpc.run.code import Code
from hpc.run.directory import not_writable
from hpc.run.listing import FORMAT, POINTS_FILE, SWEEP_FILE, is_sweep
from hpc.run.ownership import check_ownership
from hpc.run.point import Point
from hpc.run.secret import make_secret
from hpc.run.stored import no_point, open_sweep
from hpc.run.vault import Vault

WHOLE_LINES = 32
"""A sweep of so many points has whole configs in all of its lines, so that any tool for JSON can read them."""
SHORT_LINE = 700
"""Bytes; a point of other choices that differs in more than these is written as a whole, for others to differ from."""

LINE_BEGINS = b'{"name": "'
"""As every line of points.jsonl does; one that was cut short may be shorter."""


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
        raise no_point(self.directory, name, len(self.points))

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
            with self._claimed(made) as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
                flush_directory(self.directory)
                failpoint("claimed", 0)
                made.extend(self.vault.write(self.directory))
                if self.points[0].name != ".":  # a run that nobody submits has ranks which find its directory too late
                    made.append(make_secret(self.directory))
                self._write_code(made)
                replace_text(self.directory / SWEEP_FILE, self._summary())
                made.append(self.directory / SWEEP_FILE)
        return made

    def write_or_continue(self) -> None:
        """Create the directory, or go on with one that holds these points, or the first of them.

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
            failpoint("extended", 0)
            replace_text(self.directory / SWEEP_FILE, self._summary())
            self.vault.write(self.directory)
            self._write_code([])

    def _write_code(self, made: list[Path]) -> None:
        if self.code is not None:
            self.code.write(self.directory, made)

    def _check_ownership(self) -> None:
        check_ownership(self.directory, self.points[0].settings.cluster.run_dir_writers)

    @contextmanager
    def _claimed(self, made: list[Path]) -> Iterator[IO[bytes]]:
        """points.jsonl, empty and ours. One that a killed command has left without a sweep.json is taken over."""
        path = self.directory / POINTS_FILE
        if is_sweep(self.directory):
            raise self._taken()
        try:
            descriptor, is_left = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_EXCL), False
        except FileExistsError:
            descriptor, is_left = open_regular(path, os.O_RDWR), True
        with os.fdopen(descriptor, "r+b") as file:
            is_ours = is_locked(descriptor, without=not is_left) and is_same(descriptor, path)
            if not is_ours or is_sweep(self.directory):
                raise self._taken()
            if not LINE_BEGINS.startswith(file.read(len(LINE_BEGINS))):
                raise ConfigurationError(
                    f"run_dir must be a new directory, but {path} was written by another program: choose another "
                    "run_dir."
                )
            file.seek(0)
            made.append(path)
            file.truncate()
            yield file

    def _taken(self) -> ConfigurationError:
        return ConfigurationError(
            f"run_dir must be a new directory, but {self.directory} holds a sweep already: choose another run_dir."
        )

    def _changed_keys(self) -> list[str]:
        before = load_sweep(self.directory).points
        if [point.name for point in before] != [point.name for point in self.points[: len(before)]]:
            return ["the number of points"]
        pairs = zip(before, self.points, strict=False)
        from hpc.config import forbidden_changes  # deferred, as above

        both = ((masked(old.config), masked(new.config)) for old, new in pairs)  # a secret may be a new one
        return sorted({key for old, new in both for key in forbidden_changes(old, new)})

    def _summary(self) -> str:
        return json.dumps({"format": FORMAT, "points": len(self.points)}) + "\n"


def load_sweep(directory: Path) -> Sweep:
    """Read all points back.

    Raises:
        ConfigurationError: There is no sweep there.
        LoadError: Its files are damaged.
    """
    stored = open_sweep(directory)
    return Sweep(directory, tuple(map(stored.point, range(len(stored)))))


def _lines(points: Sequence[Point]) -> Iterator[str]:
    """Whole ones in a small sweep; else for the first point, and the first of other choices that differs in much."""
    if len(points) <= WHOLE_LINES:
        yield from (point.line() for point in points)
        return
    whole: dict[str, int] = {}
    for number, point in enumerate(points):
        choices = repr(point.hydra.get("runtime", {}).get("choices"))
        other = whole.get(choices, 0)
        line = point.difference(other, points[other]) if number else point.line()
        if number and choices not in whole and len(line) > SHORT_LINE:
            other, line = number, point.line()
        whole.setdefault(choices, other)
        yield line


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise not_writable(directory, error) from error


@contextmanager
def _taken_back() -> Iterator[list[Path]]:
    """A list of what is made; all of it is removed again where something fails."""
    made: list[Path] = []
    try:
        yield made
    except BaseException:
        remove_made(made)
        raise
