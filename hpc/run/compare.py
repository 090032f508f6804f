"""How do two runs differ: in their configs, their code, their versions?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.config.changes import leaves
from hpc.config.secrets import MASK
from hpc.errors import ConfigurationError
from hpc.run.code import Code, code_of_point, read_code, submitted
from hpc.run.events import Started
from hpc.run.journal import read_journal
from hpc.run.listing import is_sweep
from hpc.run.lives import starts
from hpc.run.point import Point
from hpc.run.points import load_sweep

OWN_TO_EVERY_RUN = ("run_dir",)


@dataclass(frozen=True)
class Run:
    """A sweep, a point of one, or an attempt of a point.

    Args:
        configs: Of its points.
        versions: Of Python and what is installed; empty where they were not recorded.
        commits: Of its projects, by their names.
        files: Of its code; None where no copy was made.
        secrets: Dotted keys whose values are nobody else's business.
    """

    configs: Sequence[Mapping[Any, Any]]
    versions: Mapping[str, str] = field(default_factory=dict)
    commits: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] | None = None
    secrets: frozenset[str] = frozenset()


def find_run(word: str) -> Run:
    """What a person has typed.

    Args:
        word: The directory of a sweep or of a point; `DIRECTORY@2` is the second attempt of a point, and so is
            `DIRECTORY@` with the attempt's id.

    Raises:
        ConfigurationError: There is no such sweep, point or attempt.
        LoadError: What it has left is damaged.
    """
    path, _, attempt = word.partition("@") if not Path(word).is_dir() else (word, "", "")
    directory = Path(path).expanduser().absolute()
    sweep, name = (directory, None) if is_sweep(directory) else (directory.parent, directory.name)
    if not is_sweep(sweep):
        raise ConfigurationError(f"{word} must be the directory of a sweep or of a point, but is not.")
    points = load_sweep(sweep).points
    chosen = [point for point in points if name in (None, point.name)]
    if not chosen:
        raise ConfigurationError(f"{sweep} must have a point {name}, but has {len(points)} others.")
    told = _started(directory, attempt) if attempt or name or points[0].name == "." else None
    return _run(sweep, chosen, told)


def config_differences(old: Run, new: Run) -> dict[str, tuple[Any, Any]]:
    """Values by dotted keys; of a sweep with several values of a key, all of them. Secrets are not told."""
    before, after = _values(old.configs), _values(new.configs)
    keys = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    secrets = old.secrets | new.secrets
    return {key: (MASK, MASK) if key in secrets else (before.get(key), after.get(key)) for key in keys}


def version_differences(old: Run, new: Run) -> dict[str, tuple[str, str]]:
    """Versions by names; "" where it is not installed."""
    names = sorted({*old.versions, *new.versions})
    pairs = {name: (old.versions.get(name, ""), new.versions.get(name, "")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def code_differences(old: Run, new: Run) -> dict[str, list[str]]:
    """The lines of a unified diff by the paths of files that differ; of files that are no text, one line says so."""
    before, after = old.files or {}, new.files or {}
    paths = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
    return {path: _diff(path, before.get(path), after.get(path)) for path in paths}


def _run(sweep: Path, points: Sequence[Point], told: Started | None) -> Run:
    code = _code(sweep, points, told)
    configs = [point.config for point in points]
    record: Mapping[str, Any] = {} if code is None else code.record
    versions = {"python": record.get("python", ""), **record.get("versions", {})} if record else {}
    if told is not None and told.python:
        versions = {**versions, "python": told.python, **told.versions}
    projects = [*record.get("projects", ()), *record.get("elsewhere", ())]
    commits = {Path(each["root"]).name: each["commit"] for each in projects if each.get("commit")}
    files = _files(sweep, code) if code is not None and code.tree else None
    secrets = {key for point in points for key, value in leaves(point.config) if _is_secret(point, key, value)}
    return Run(
        configs, {name: version for name, version in versions.items() if version}, commits, files, frozenset(secrets)
    )


def _is_secret(point: Point, key: str, value: Any) -> bool:
    return point.secrets.hides(tuple(key.split(".")), value)


def _code(sweep: Path, points: Sequence[Point], told: Started | None) -> Code | None:
    if told is None:
        return code_of_point(sweep, points[0].name) if len(points) == 1 else next(reversed(submitted(sweep)), None)
    return next((code for code in reversed(submitted(sweep)) if code.tree == told.tree), None)


def _files(sweep: Path, code: Code) -> dict[str, bytes]:
    """Where there is one project, its name is left out: clones of it may lie in directories of other names."""
    files = read_code(sweep, code)
    if len(code.record.get("projects", ())) != 1:
        return files
    return {path.partition("/")[2]: content for path, content in files.items()}


def _started(directory: Path, attempt: str) -> Started | None:
    """How an attempt began: the one that is asked for, or the newest."""
    found = starts(read_journal(directory))
    if not attempt:
        return found[-1] if found and found[-1].python else None
    if attempt.isdigit() and 0 < int(attempt) <= len(found):
        return found[int(attempt) - 1]
    for each in found:
        if each.attempt == attempt:
            return each
    raise ConfigurationError(f"{directory} must have an attempt {attempt}, but has {len(found)} others.")


def _values(configs: Iterable[Mapping[Any, Any]]) -> dict[str, Any]:
    """One value where all points have the same, else a tuple of the distinct ones in order."""
    found: dict[str, list[Any]] = {}
    for config in configs:
        for key, value in leaves(config):
            values = found.setdefault(key, [])
            if key not in OWN_TO_EVERY_RUN and value not in values:
                values.append(value)
    return {key: values[0] if len(values) == 1 else tuple(values) for key, values in found.items() if values}


def _diff(path: str, old: bytes | None, new: bytes | None) -> list[str]:
    before, after = _lines(old), _lines(new)
    if before is None or after is None:
        return [f"{path} is no text and differs"]
    names = "/dev/null" if old is None else f"a/{path}", "/dev/null" if new is None else f"b/{path}"
    return list(difflib.unified_diff(before, after, *names, lineterm=""))


def _lines(content: bytes | None) -> list[str] | None:
    try:
        return [] if content is None else content.decode().splitlines()
    except UnicodeDecodeError:
        return None
