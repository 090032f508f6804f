"""Which sweep does a person mean, and which of its points?"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from hpc.errors import ConfigurationError, HpcError
from hpc.run.index import recorded_sweeps
from hpc.run.listing import SWEEP_FILE, count_points, is_sweep
from hpc.run.submissions import newest_jobs
from hpc.status.overrides import find_key, fits

ROOT = "runs"
"""The first part of run_dir in conf/config.yaml: sweeps of this directory lie below it, one or two levels deep."""
JOB = re.compile(r"\d+(_\d+)?(\.\d+)?")


class Selectable(Protocol):
    """What a point is found by."""

    @property
    def index(self) -> int:
        """Its place in the sweep."""
        ...

    @property
    def name(self) -> str:
        """Its directory."""
        ...

    @property
    def overrides(self) -> Mapping[str, str]:
        """By key."""
        ...


def known_sweeps(environ: Mapping[str, str], here: Path) -> list[Path]:
    """The directories of my sweeps, the newest first: those that were recorded, and those below runs/ here."""
    recorded = [each.directory for each in recorded_sweeps(environ)]
    below = (path.parent for path in (here / ROOT).glob(f"*/{SWEEP_FILE}"))
    deeper = (path.parent for path in (here / ROOT).glob(f"*/*/{SWEEP_FILE}"))
    return sorted({*recorded, *below, *deeper}, key=_made_at, reverse=True)


def split(words: Sequence[str], environ: Mapping[str, str], here: Path) -> tuple[Path, list[str]]:
    """The sweep that is meant, and the words that name its points.

    The first word is a sweep where it is the path of one or the end of a known one's; the path of a point is both.
    Where no word names a sweep, a job number does, else it is the newest one.

    Raises:
        ConfigurationError: No sweep is meant, or several may be.
    """
    first, *rest = list(words) or [""]
    found = _by_path(first, here)
    if found is not None:
        return found[0], [*found[1], *rest]
    known = known_sweeps(environ, here)
    ends = [path for path in known if first and path.parts[-len(Path(first).parts) :] == Path(first).parts]
    if len(ends) > 1:
        raise ConfigurationError(f"{first} must name one sweep, but may be {' or '.join(map(str, ends))}.")
    if ends and not _is_selector(first):
        return ends[0], rest
    if first and not _is_selector(first):
        raise ConfigurationError(
            f"{first} must be a sweep's directory, or a point of one as 3, lr=3e-4 or 1234_7, but is none of these: "
            "`hpc ls` lists the sweeps."
        )
    jobs = [word for word in words if _is_job(word) and not (known and _is_index(known[0], word))]
    holders = [path for path in known if any(_holds(path, word) for word in jobs)] if jobs else []
    if not known:
        raise ConfigurationError(
            f"There must be a sweep to look at, but none was submitted from here, and {here / ROOT} has none: "
            "name its directory."
        )
    return (holders or known)[0], list(words)


def select(points: Sequence[Selectable], jobs: Mapping[str, str], words: Sequence[str]) -> list[int]:
    """The places of the points that are meant; all of them where nothing is asked. What has a `=` must fit together.

    Args:
        points: Those of the sweep, in order.
        jobs: By name of a point: its job.
        words: Indices, names, jobs as 1234_7, or overrides as lr=3e-4, which several words may narrow.

    Raises:
        ConfigurationError: A word names no point.
    """
    if not words:
        return [point.index for point in points]
    keys = list(dict.fromkeys(key for point in points for key in point.overrides))
    parts = [part for word in words for part in (_comma_parts(word) if "=" in word else [word])]
    asked = [
        (find_key(key.lstrip("+"), keys), value)
        for key, _, value in (part.partition("=") for part in parts if "=" in part)
    ]
    chosen = {point.index for point in points if asked and fits(point.overrides, asked)}
    if asked and not chosen:
        raise ConfigurationError(
            f"{' '.join(words)} must fit a point of the sweep, but none of the {len(points)} has that."
        )
    for word in words:
        if "=" not in word:
            chosen.update(_by_word(points, jobs, word))
    return sorted(chosen)


def _comma_parts(word: str) -> list[str]:
    """lr=3e-4,seed=1 is two; betas=[0.9,0.95] is one."""
    return re.split(r",(?=[\w.@/+]+=)", word)


def _by_word(points: Sequence[Selectable], jobs: Mapping[str, str], word: str) -> list[int]:
    found = [point.index for point in points if point.name == word]
    if not found and word.isdigit() and int(word) < len(points):
        found = [int(word)]
    if not found:
        found = [point.index for point in points if _is_of(jobs.get(point.name, ""), word)]
    if not found:
        raise ConfigurationError(
            f"{word} must be a point of the sweep, which has {len(points)}, by index, name, override or job: "
            "`hpc status --all` lists them."
        )
    return found


def _is_of(job: str, word: str) -> bool:
    element = job.partition(".")[0]
    return bool(job) and word in (job, element, element.rpartition("_")[0])


def _by_path(word: str, here: Path) -> tuple[Path, list[str]] | None:
    """The sweep in a directory, or the one that the directory of a point lies in."""
    if not word:
        return None
    path = Path(os.path.normpath(here / Path(word).expanduser()))
    if _is_sweep(path):
        return path, []
    if path.is_dir() and _is_sweep(path.parent) and ("/" in word or not _is_selector(word)):
        return path.parent, [path.name]
    return None


def _is_sweep(path: Path) -> bool:
    try:
        return is_sweep(path)
    except (OSError, ValueError):
        return False


def _is_selector(word: str) -> bool:
    return "=" in word or JOB.fullmatch(word) is not None


def _is_job(word: str) -> bool:
    return JOB.fullmatch(word) is not None


def _is_index(sweep: Path, word: str) -> bool:
    try:
        return word.isdigit() and int(word) < count_points(sweep)
    except HpcError:
        return False


def _holds(sweep: Path, word: str) -> bool:
    try:
        return any(_is_of(job.id, word) for job in newest_jobs(sweep).values())
    except OSError:
        return False


def _made_at(sweep: Path) -> float:
    try:
        return (sweep / SWEEP_FILE).stat().st_mtime
    except OSError:
        return 0.0
