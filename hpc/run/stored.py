"""What are the points of a sweep on disk, configs and all?

Who needs one point of ten thousand reads `open_sweep(directory).named("17")`, and who needs none of their configs
`hpc.run.listing`.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

from hpc.errors import LoadError
from hpc.run.listing import POINTS_FILE, Listing, list_points
from hpc.run.point import Point
from hpc.run.vault import Vault


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
        except (ValueError, LookupError, TypeError, AttributeError, ImportError, RecursionError) as error:
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
        raise no_point(self.directory, name, len(self))

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


def no_point(directory: Path, name: str, others: int) -> LoadError:
    """What is raised where a sweep has no point of that name."""
    return LoadError(f"{directory / POINTS_FILE} must hold point {name}, but has {others} others.")
