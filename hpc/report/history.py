"""What has every point of a sweep been through? Its time, how much it held, and why it failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.errors import HpcError
from hpc.report.spans import HELD, KINDS, Span, spans
from hpc.run.events import Committed, Event, Resumed
from hpc.run.journal import read_journal
from hpc.run.lives import SECONDS_PER_HOUR, Life, lives
from hpc.run.progress import read_progress
from hpc.run.stored import StoredSweep
from hpc.status.standing import RUNNING, SAVING, TELLING, UNSUBMITTED
from hpc.status.sweep import PointStatus

TOLD: tuple[type[Event], ...] = (*TELLING, Resumed, Committed)


@dataclass(frozen=True)
class History:
    """One point's.

    Args:
        point: As it is now.
        past: Its lives.
        spans: Where its time went.
        hardware: That part of its config.
    """

    point: PointStatus
    past: Sequence[Life]
    spans: Sequence[Span]
    hardware: Mapping[str, Any]

    @property
    def gpus(self) -> int:
        """How many it holds while it lives, of all its nodes."""
        return int((self.hardware.get("nodes") or 1) * (self.hardware.get("gpus_per_node") or 0))

    @property
    def ranks(self) -> int:
        """How many processes it has."""
        return int((self.hardware.get("nodes") or 1) * (self.hardware.get("tasks_per_node") or 1))

    @property
    def attempts(self) -> int:
        """How many of its lives had all their ranks."""
        return sum(life.has_started for life in self.past)

    def seconds(self, *kinds: str) -> float:
        """Time spent with these."""
        return sum(span.seconds for span in self.spans if span.kind in kinds)


@dataclass(frozen=True)
class Split:
    """Where the hours went that hardware was held.

    Args:
        unit: GPU-hours; rank-hours where no point has a GPU.
        hours: By kind of span: those of `HELD`, in that order. Their sum is what was held.
        waited: Hours that points waited, added up; nothing was held then.
    """

    unit: str
    hours: dict[str, float]
    waited: float

    @property
    def total(self) -> float:
        """All hours that hardware was held."""
        return sum(self.hours.values())


def histories(points: Iterable[PointStatus], sweep: StoredSweep, now: float) -> list[History]:
    """Those of all points.

    Args:
        points: As they are now.
        sweep: They are of this one.
        now: Seconds since the epoch.

    Raises:
        LoadError: The sweep's own files are damaged; a point whose files are has no past.
    """
    return [_history(point, sweep, now) for point in points]


def split(found: Sequence[History]) -> Split:
    """The hours of all points, added up."""
    has_gpus = any(each.gpus for each in found)
    hours = dict.fromkeys(KINDS, 0.0)
    for each in found:
        for span in each.spans:
            hours[span.kind] += span.seconds * (each.gpus if has_gpus else each.ranks) / SECONDS_PER_HOUR
    waited = sum(span.seconds for each in found for span in each.spans if span.kind not in HELD)
    held = {kind: hours[kind] for kind in HELD}
    return Split("GPU-hours" if has_gpus else "rank-hours", held, waited / SECONDS_PER_HOUR)


def _history(point: PointStatus, sweep: StoredSweep, now: float) -> History:
    sent = None if point.job is None else point.job.submission.time
    past = [] if point.state == UNSUBMITTED else _past(point.directory)
    is_alive = point.state in (RUNNING, SAVING)
    told = read_progress(point.directory) if past else None
    heard = now if is_alive else told.time if told is not None else 0.0
    found = spans(past, _first_sent(past, sent), heard, is_alive)
    return History(point, past, found, sweep.point(point.index).config.get("hardware") or {})


def _first_sent(past: Sequence[Life], sent: float | None) -> float | None:
    """The newest submission, where it is the only one: what was sent before it has waits of its own."""
    return sent if sent is not None and (not past or sent <= past[0].events[0].time) else None


def _past(directory: str | Path) -> list[Life]:
    try:
        return lives(read_journal(directory, TOLD))
    except HpcError:
        return []
