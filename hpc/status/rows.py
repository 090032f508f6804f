"""What is told of one point: every field of `hpc status --json`, with its unit in its name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpc.errors import HpcError
from hpc.files import read_tail
from hpc.run.directory import RunDirectory
from hpc.run.events import Ended, SlowRank, Started
from hpc.run.lives import Life
from hpc.run.progress import Progress, read_progress
from hpc.slurm.reasons import explained
from hpc.slurm.why import phrase_of
from hpc.status.standing import FINISHED, PENDING, RUNNING, SAVING, UNSUBMITTED, past_of
from hpc.status.sweep import PointStatus, SweepStatus
from hpc.stop.slow import sentence
from hpc.world.hostlist import expand_hostlist

FORMAT = 1
METRICS_FILE = RunDirectory(Path()).metrics.name
LAST_ROW_BYTES = 4096


def as_json(status: SweepStatus) -> dict[str, Any]:
    """A sweep as `hpc status --json` prints it; docs/status.md has the fields."""
    return {
        "format": FORMAT,
        "sweep": str(status.directory),
        "problem": status.problem,
        "counts": status.counts,
        "differing": status.differing,
        "points": [row(point) for point in status.points],
    }


def row(point: PointStatus) -> dict[str, Any]:
    """Everything about one point. A file of it that cannot be read leaves its fields empty."""
    past = _past(point)
    progress = None if point.state == UNSUBMITTED else _progress(point.directory)
    is_under_way = point.state in (RUNNING, SAVING)
    job, queued = point.job, point.queued
    reason = queued.reason if queued is not None and point.state == PENDING else ""
    return {
        "point": point.name,
        "index": point.index,
        "overrides": dict(point.overrides),
        "state": point.state,
        "step": None if progress is None else progress.step,
        "total_steps": None if progress is None else progress.total_steps or None,
        "loss": None if progress is None else progress.metrics.get("loss"),
        "metrics": {} if progress is None else dict(progress.metrics),
        "per_second": None if progress is None else progress.per_second,
        "unit": None if progress is None else progress.unit,
        "seconds_left": progress.seconds_left if progress is not None and is_under_way else None,
        "told_at": None if progress is None else progress.time or None,
        "attempt": sum(life.has_started for life in past),
        "attempt_id": past[-1].attempt if past else None,
        "cause": None if point.standing.cause is None else asdict(point.standing.cause),
        "last_end": _last_end(past),
        "slow_rank": _slow_rank(past) if is_under_way else None,
        "job": None if job is None else job.id,
        "scheduler": None if job is None else job.submission.scheduler,
        "slurm_state": None if queued is None else queued.state,
        "reason": reason or None,
        "reason_text": explained(reason) or None,
        "nodes": _nodes(point, past) if point.state != PENDING else [],
        "starts_at": None if queued is None else queued.start,
        "allocation_seconds_left": queued.seconds_left if queued is not None and is_under_way else None,
        "directory": point.directory,
    }


def _past(point: PointStatus) -> Sequence[Life]:
    if point.standing.past is not None or point.state == UNSUBMITTED:
        return point.standing.past or ()
    try:
        return past_of(point.directory)
    except HpcError:
        return ()


def _last_end(past: Sequence[Life]) -> dict[str, Any] | None:
    """Why its newest life that has ended did so, by whoever watched over it."""
    told = [event for life in past for event in life.events if isinstance(event, Ended)]
    if not told:
        return None
    end = max(told, key=lambda each: each.time)
    known = {"verdict": end.verdict, "text": phrase_of(end.verdict), "follows": end.follows}
    return {**known, "code": end.code, "time": end.time}


def _slow_rank(past: Sequence[Life]) -> dict[str, Any] | None:
    """The rank for which the others wait, by what the life under way has told last."""
    told = [event for life in past[-1:] for event in life.events if isinstance(event, SlowRank)]
    return {**asdict(told[-1]), "factor": round(told[-1].factor, 2), "text": sentence(told[-1])} if told else None


def _nodes(point: PointStatus, past: Sequence[Life]) -> list[str]:
    if point.queued is not None and point.queued.nodes:
        with suppress(HpcError):
            return list(expand_hostlist(point.queued.nodes))
    started = [event for life in past for event in life.events if isinstance(event, Started)]
    return list(dict.fromkeys(started[-1].hosts)) if started else []


def _progress(directory: str) -> Progress | None:
    """What the run told last; of a run that told nothing, the last row of its metrics."""
    told = read_progress(directory)
    if told is not None and told.metrics:
        return told
    last = last_metrics(directory)
    if last is None:
        return told
    step = int(last.pop("step"))
    if told is None:
        return Progress(step, 0, 0.0, metrics=last)
    return Progress(told.step, told.total_steps, told.time, metrics=last)


def last_metrics(directory: str) -> dict[str, Any] | None:
    """The last whole row of metrics.jsonl; None where there is none."""
    try:
        lines = read_tail(f"{directory}/{METRICS_FILE}", LAST_ROW_BYTES).decode(errors="replace").split("\n")[:-1]
    except OSError:
        return None
    for line in reversed(lines):
        with suppress(ValueError, TypeError, RecursionError):
            found = json.loads(line)
            if isinstance(found, Mapping) and isinstance(found.get("step"), int):
                return dict(found)
    return None


def is_done(state: str) -> bool:
    """Whether nothing more will happen to a point in this state by itself."""
    return state not in (RUNNING, SAVING, PENDING) or state == FINISHED
