"""Which points of a sweep does the queue of a machine run, and what became of the others?

    queue/record.jsonl    a line of JSON for each thing that happened; only the queue writes, and holds a lock on it
    queue/cancel          names of points that are to be cancelled, a line each; added by whoever may write here
    queue/output.log      what a queue without a terminal says
    queue/logs/           what the ranks print: 20261125-170501-9f3a1c_0.log is rank 0's in one attempt

The lines of record.jsonl, which all have a `time` in seconds since the epoch:

    {"event": "opened", "host": …, "pid": …, "started": …, "points": [names]}     a queue began
    {"event": "started", "point": …, "attempt": 1, "job": …, "pid": …, "started": …, "gpus": [names], "after": …}
    {"event": "ended", "point": …, "attempt": 1, "code": 75, "state": "waiting"}  its state from now on
    {"event": "closed", "code": 0}                                                the queue ended by itself
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpc.files import PRIVATE_MODE, append_text
from hpc.run.json_lines import json_objects
from hpc.run.processes import is_running
from hpc.run.submissions import LOCAL, Job, Process, Submission

WAITING, RUNNING, FINISHED, FAILED = "waiting", "running", "finished", "failed"
STOPPED, CANCELLED, LOST = "stopped", "cancelled", "lost"
"""A point waits for its first attempt or for the next one; it stopped with its queue, after a save where there was
time; a person cancelled it; or its queue was killed while it ran."""


@dataclass(frozen=True)
class QueueFiles:
    """Where the queue of a sweep keeps what it tells.

    Args:
        sweep: The sweep's directory. Nothing is created by naming it.
    """

    sweep: Path

    @property
    def directory(self) -> Path:
        """Everything about the queue."""
        return self.sweep / "queue"

    @property
    def record(self) -> Path:
        """What happened."""
        return self.directory / "record.jsonl"

    @property
    def cancel(self) -> Path:
        """What is to be cancelled."""
        return self.directory / "cancel"

    @property
    def output(self) -> Path:
        """What a queue without a terminal says."""
        return self.directory / "output.log"

    def log(self, job: str, rank: int = 0) -> Path:
        """What one rank printed in one attempt."""
        return self.directory / "logs" / f"{job}_{rank}.log"


@dataclass(frozen=True)
class QueuedPoint:
    """What the queue tells of one point.

    Args:
        name: Of the point.
        state: waiting, running, finished, failed, stopped, cancelled or lost.
        attempt: How often it was started, from 1; 0 where it was not.
        job: A part of the name of that attempt, and of its logs.
        process: What watches over its ranks; a SIGTERM to it is one to them.
        gpus: Names of the GPUs that no other point had meanwhile.
        code: The exit code of the newest attempt that has ended.
        time: When this became so, in seconds since the epoch.
        after: The newest attempt that the point had before this one, in the words of its journal.
    """

    name: str
    state: str = WAITING
    attempt: int = 0
    job: str = ""
    process: Process | None = None
    gpus: tuple[str, ...] = ()
    code: int | None = None
    time: float = 0.0
    after: str = ""

    @property
    def held(self) -> Job:
        """What holds the point, as `hpc.run.submissions` tells it of jobs in Slurm."""
        submission = Submission(self.job or LOCAL, (self.name,), self.time, LOCAL, process=self.process)
        return Job(submission.job, submission, self.state == CANCELLED, self.after, self.state)


@dataclass(frozen=True)
class LocalQueue:
    """The newest queue of a sweep.

    Args:
        process: The one that starts points; a SIGTERM to it stops them all, after a save.
        code: Its exit code, where it has ended by itself.
        points: By name: all points that it or an earlier one took on.
    """

    process: Process
    code: int | None = None
    points: Mapping[str, QueuedPoint] = field(default_factory=dict)

    @property
    def is_running(self) -> bool | None:
        """Whether it still starts points; None where it was started on another host, and nobody here can say."""
        return False if self.code is not None else is_running(self.process)


def read_queue(sweep: Path) -> LocalQueue | None:
    """The newest queue of a sweep; None where it never had one. A line that was cut short is passed over.

    Raises:
        OSError: The record is there and cannot be read.
    """
    queue: LocalQueue | None = None
    points: dict[str, QueuedPoint] = {}
    for line in json_objects(QueueFiles(sweep).record):
        try:
            if line["event"] == "opened":
                queue = LocalQueue(_process(line))
                points |= {each.name: each for each in _left_behind(points.values())}
                points |= {name: _again(points, name, line["time"]) for name in line["points"]}
            elif line["event"] == "closed" and queue is not None:
                queue = replace(queue, code=line["code"])
            elif queue is not None:
                points[line["point"]] = _told(line, points[line["point"]], queue.process.host)
        except (LookupError, TypeError):
            continue
    if queue is None:
        return None
    is_over = queue.is_running is False
    return replace(queue, points={each.name: each for each in (_left_behind if is_over else iter)(points.values())})


def ask_to_cancel(sweep: Path, points: Iterable[str]) -> None:
    """Ask the queue of a sweep, on whatever host it runs, to end these points and not to start them any more.

    A point that runs may save first. Where no queue runs, nothing happens.

    Raises:
        OSError: It cannot be written.
    """
    append_text(QueueFiles(sweep).cancel, "".join(f"{name}\n" for name in points), PRIVATE_MODE)


def _process(line: Mapping[str, Any], host: str = "") -> Process:
    return Process(host or line["host"], line["pid"], line["started"])


def _again(points: Mapping[str, QueuedPoint], name: str, time: float) -> QueuedPoint:
    return replace(points.get(name, QueuedPoint(name)), state=WAITING, time=time)


def _told(line: Mapping[str, Any], before: QueuedPoint, host: str) -> QueuedPoint:
    if line["event"] == "ended":
        return replace(before, state=line["state"], code=line["code"], gpus=(), time=line["time"])
    return QueuedPoint(
        name=line["point"],
        state=RUNNING,
        attempt=line["attempt"],
        job=line["job"],
        process=_process(line, host),
        gpus=tuple(line["gpus"]),
        code=before.code,
        after=line.get("after", ""),
        time=line["time"],
    )


def _left_behind(points: Iterable[QueuedPoint]) -> Iterator[QueuedPoint]:
    """The points as they are once their queue has gone."""
    after = {RUNNING: LOST, WAITING: STOPPED}
    return (replace(each, state=after.get(each.state, each.state)) for each in points)
