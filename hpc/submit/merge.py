"""Which points of a command has its sweep already, when it is typed once more, perhaps with more of them?

A point is known by what was typed for it, its place and size left out, and else by its signature: what it computes. The
sweep's points keep their names; new ones get the numbers that follow.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpc.config import forbidden_changes
from hpc.config.secrets import masked, masked_override
from hpc.errors import ConfigurationError
from hpc.run.listing import is_sweep, list_points
from hpc.run.point import ELSEWHERE, Point
from hpc.run.points import Sweep, load_sweep
from hpc.submit.earlier import of_these


@dataclass(frozen=True)
class Merged:
    """A command and the sweep that it is about.

    Args:
        stored: The sweep as it is.
        typed: The command's points, in its order, under their names in the sweep; and its code.
    """

    stored: Sweep
    typed: Sweep

    @property
    def new(self) -> list[Point]:
        """Those that the sweep has not."""
        known = {point.name for point in self.stored.points}
        return [point for point in self.typed.points if point.name not in known]

    def sweep(self, names: Collection[str]) -> Sweep:
        """As it is to be: these points as the command has them and with its code, the others as they are; new ones."""
        typed = {point.name: point for point in self.typed.points if point.name in names}
        kept = (typed.get(point.name, point) for point in self.stored.points)
        code = self.typed.code and of_these(self.typed.code, typed.values())
        return Sweep(self.stored.directory, (*kept, *self.new), code)


def numbers(directory: Path, overrides: Sequence[Sequence[str]]) -> list[int]:
    """The number of each point of a command.

    Args:
        directory: The sweep's, which need not be there.
        overrides: What was typed for each point.

    Raises:
        ConfigurationError: There is another kind of run.
        LoadError: Its files are damaged.
    """
    if not is_sweep(directory):
        return list(range(len(overrides)))
    stored = list(list_points(directory).overrides())
    if any(not name.isdigit() for name, _ in stored):
        raise ConfigurationError(
            f"run_dir must be that of a sweep for -m, but {directory} holds a run that was started without it: "
            "choose another run_dir."
        )
    found: dict[int, int] = {}
    free = {int(name): tuple(typed) for name, typed in stored}
    for same in (_exactly, _in_what_is_computed):
        known: dict[tuple[str, ...], list[int]] = {}
        for number, there in free.items():
            known.setdefault(same(there), []).append(number)
        for position, typed in enumerate(overrides):
            if position not in found and known.get(same(typed)):
                found[position] = known[same(typed)].pop(0)
                del free[found[position]]
    following = itertools.count(max(int(name) for name, _ in stored) + 1)
    return [found[position] if position in found else next(following) for position in range(len(overrides))]


def merged(sweep: Sweep) -> Merged:
    """A command's points beside those of the sweep in its directory.

    Raises:
        ConfigurationError: They are others.
        LoadError: The sweep's files are damaged.
    """
    stored = load_sweep(sweep.directory)
    by_name = {point.name: point for point in stored.points}
    typed = {point.name for point in sweep.points}
    twins = {point.signature: point for point in stored.points if point.name not in typed}
    points = tuple(
        _as(twins.pop(point.signature), point) if point.name not in by_name and point.signature in twins else point
        for point in sweep.points
    )
    _check_same(sweep.directory, by_name, points)
    result = Merged(stored, replace(sweep, points=points))
    names = {point.name for point in points}
    left = [point for point in stored.points if point.name not in names]
    if result.new and left:
        raise ConfigurationError(
            f"run_dir={sweep.directory} must be given the points that it holds, to add some, but point {left[0].name} "
            f"({' '.join(map(masked_override, left[0].overrides))}) is none of this command's: type it, too, or choose "
            "another run_dir."
        )
    return result


def _check_same(directory: Path, by_name: dict[str, Point], points: Sequence[Point]) -> None:
    for point in points:
        old = by_name.get(point.name)
        changed = [] if old is None else forbidden_changes(masked(old.config), masked(point.config))
        if changed:
            raise ConfigurationError(
                f"run_dir={directory} must be submitted again with the config it was started with, but "
                f"{', '.join(changed)} of point {point.name} changed: change it back, or choose another run_dir."
            )


def _as(old: Point, new: Point) -> Point:
    """The point that is there, where and as large as it is asked for now."""
    asked: dict[Any, Any] = {key: new.config[key] for key in ELSEWHERE if key in new.config and key != "run_dir"}
    return replace(old, config={**old.config, **asked}, checked=None)


def _exactly(overrides: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(masked_override, overrides))


def _in_what_is_computed(overrides: Sequence[str]) -> tuple[str, ...]:
    return tuple(text for text in _exactly(overrides) if text.lstrip("+~").split("=")[0].split(".")[0] not in ELSEWHERE)
