"""Sweeps on disk with points in every state, made by the code that makes them in earnest, and what squeue says."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from hpc.cli import main
from hpc.run.directory import RunDirectory
from hpc.run.events import Committed, Event, Failed, Finished, SlowRank, Started, Stopped
from hpc.run.journal import Journal
from hpc.run.point import Point
from hpc.run.points import Sweep
from hpc.run.progress import Progress
from hpc.run.result import write_result
from hpc.run.submissions import Submission, record_submission
from tests.conftest import FakeSlurm

CONFIG: dict[str, Any] = {
    "experiment": {"name": "gpt", "target": "tests.programs.jobs.train"},
    "hardware": {"name": "cpu", "memory_gb": 8, "time_limit_minutes": 5},
    "cluster": {"scheduler": "slurm"},
    "optimizer": {"lr": 0.001},
    "seed": 0,
}
BEGAN = Started("slurm", 2, ("node1", "node2"))
HALFWAY = Progress(50, 100, 0.0, 1234.5, "tokens", 720.0, {"loss": 2.5, "grad_norm": 1.0})


@dataclass
class Made:
    """A sweep of points that differ in lr and seed, sent as array 100.

    Args:
        directory: Of the sweep.
        slurm: Whose squeue answers for it.
    """

    directory: Path
    slurm: FakeSlurm
    queue: list[str] = field(default_factory=list)

    def write(self, count: int, submitted: Sequence[int] | None = None) -> Made:
        """Freeze the points; those of `submitted`, or all, are in the array."""
        points = [
            Point(str(n), (f"optimizer.lr={('1e-3', '3e-4')[n % 2]}", f"seed={n // 2}", "hardware=cpu"), CONFIG)
            for n in range(count)
        ]
        Sweep(self.directory, tuple(points)).write()
        names = tuple(str(n) for n in (range(count) if submitted is None else submitted))
        record_submission(self.directory, Submission("100", names, time.time(), is_array=True))
        return self

    def tell(self, point: int, *events: Event, attempt: str = "linux.200-0.0", told: Progress | None = HALFWAY) -> Path:
        """Let an attempt of a point have told this; returns the point's directory."""
        directory = self.directory / str(point)
        directory.mkdir(exist_ok=True)
        for event in events:
            Journal(directory, attempt).write(event)
            if isinstance(event, Finished):
                write_result(directory, event.value)
        if told is not None:
            RunDirectory(directory).progress.write_text(json.dumps(told.__dict__))
        return directory

    def queued(self, task: int, state: str, reason: str = "None", nodes: str = "", left: str = "10:00") -> None:
        """What squeue says of a task from now on, too."""
        self.queue.append(f"100_{task}|{state}|2026-11-25T10:00:00|{left}|{nodes}|{reason}")
        self.slurm.answer("squeue", "\n".join(self.queue) + "\n")

    def rows(self, step: int, losses: Sequence[float], point: int) -> None:
        """metrics.jsonl of a point; its steps end at `step`."""
        lines = [json.dumps({"step": step - len(losses) + 1 + n, "loss": loss}) for n, loss in enumerate(losses)]
        RunDirectory(self.directory / str(point)).metrics.write_text("\n".join(lines) + "\n")


def in_every_state(directory: Path, slurm: FakeSlurm) -> Made:
    """Ten points: finished, running, saving, pending, stopped, failed, out of memory, lost, cancelled, never sent."""
    made = Made(directory, slurm).write(10, range(9))
    made.tell(
        0, BEGAN, Committed(100), Finished(0.5), told=Progress(100, 100, 0.0, 900.0, "tokens", 0.0, {"loss": 1.5})
    )
    made.rows(100, [3.0, 1.25, 1.5], 0)
    made.tell(1, BEGAN, attempt="linux.201-0.0")
    made.tell(1, BEGAN, SlowRank(3, "node2", 0.31, 0.129), attempt="linux.201-1.0")
    made.queued(1, "RUNNING", nodes="node[1-2]")
    (made.tell(2, BEGAN) / "checkpoints" / "step_00000050.tmp-abc").mkdir(parents=True)
    made.queued(2, "RUNNING", nodes="node3")
    made.queued(3, "PENDING", "Priority")
    made.tell(4, BEGAN, Committed(50), Stopped(50, "TIME_LIMIT"))
    made.tell(5, BEGAN, Failed(1, 1, "ValueError: no such split"))
    made.tell(6, BEGAN, told=None)
    made.queued(6, "OUT_OF_MEMORY", "OutOfMemory")
    made.tell(7, BEGAN, told=None)
    made.queued(8, "CANCELLED")
    return made


def hpc(slurm: FakeSlurm, *arguments: str | Path, environ: Mapping[str, str] | None = None) -> Result:
    """`hpc ARGUMENTS` in this process, with that Slurm on PATH."""
    runner = CliRunner()
    environment = {**slurm.environ, "COLUMNS": "160", **(environ or {})}
    return runner.invoke(main, [str(argument) for argument in arguments], env=environment, prog_name="hpc")


def told_by(result: Result) -> Any:
    """The JSON that a verb has printed."""
    assert result.exit_code == 0, result.output + os.linesep + repr(result.exception)
    return json.loads(result.stdout)
