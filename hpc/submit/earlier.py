"""With which code do points of an earlier submission go on? With theirs, unless today's is asked for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from hpc.errors import ConfigurationError
from hpc.run.code import POINTS, Code, archive_bytes, code_of_point, submitted
from hpc.run.point import Point
from hpc.run.points import Sweep
from hpc.submit.snapshot import code_of


def with_code(sweep: Sweep, names: Collection[str], take_new: bool) -> list[tuple[Sweep, set[str]]]:
    """The sweep with the code of each of its earlier submissions, and the points that go on with it.

    Args:
        sweep: As it is to be.
        names: Of the points that are to be submitted again.
        take_new: Whether they take the code as it is now, which is then put beside the earlier one.

    Raises:
        ConfigurationError: This is not the place where the new code lies.
        LoadError: The code of an earlier submission is gone, or damaged.
    """
    points = [point for point in sweep.points if point.name in names]
    if take_new:
        return [(replace(sweep, code=_new(sweep.directory, points)), {*names})]
    groups: dict[str, tuple[Code | None, set[str]]] = {}
    for point in points:
        code = code_of_point(sweep.directory, point.name) if point.settings.launch.snapshot else None
        groups.setdefault(code.tree if code else "", (code, set()))[1].add(point.name)
    for code, _ in groups.values():
        if code is not None and code.tree:
            archive_bytes(sweep.directory, code)
    return [(replace(sweep, code=code), found) for code, found in groups.values()]


def _new(directory: Path, points: list[Point]) -> Code:
    code, earlier = of_these(code_of(points), points), submitted(directory)
    roots = [str(project["root"]) for project in code.record["projects"]]
    before = [str(project["root"]) for project in (earlier[-1].record.get("projects", ()) if earlier else ())]
    if before and points[0].settings.launch.snapshot and not {*roots} & {*before}:
        raise ConfigurationError(f"--new-code must be typed in the project that was submitted, {before[0]}.")
    code.write(directory, [])
    return replace(code, is_stored=True)


def of_these(code: Code, points: Collection[Point]) -> Code:
    """The code, which is noted down as that of these points and of no others."""
    return replace(code, record={**code.record, POINTS: [point.name for point in points]})
