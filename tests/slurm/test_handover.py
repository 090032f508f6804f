"""Lives of a job that end without a person's wish, on a real Slurm: the run goes on by itself, or says why not."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc.run.events import Committed, Ended, Resumed, Started
from hpc.testing.cluster import SlurmCluster
from tests.slurm.submitted import Submitted, submitted_from
from tests.support.equality import differences

pytestmark = pytest.mark.slurm

JOB = (
    "-m", "hardware=cpu", "hardware.nodes=1", "hardware.tasks_per_node=2", "hardware.time_limit_minutes=20",
    "experiment.target=tests.programs.jobs.train", "runtime.deterministic=true", "checkpoint.every_steps=20",
    "steps=60", "launch.snapshot=false",
)  # fmt: skip
Submit = Callable[..., Submitted]


@pytest.fixture
def submit(cluster: SlurmCluster, tmp_path: Path) -> Iterator[Submit]:
    """Type `python run.py -m ...` on the login side; whatever is still there at the end is cancelled."""
    directory = tmp_path / "run"

    def send(*arguments: str, step_seconds: float = 0.2, **job: Any) -> Submitted:
        told = {"step_seconds": step_seconds, "trace": "'${run_dir}/trace'", **job}
        words = ",".join(f"{name}:{value}" for name, value in told.items())
        return submitted_from(tmp_path, cluster, directory, *JOB, f"+job={{{words}}}", *arguments)

    yield send
    cluster.run("scancel", *jobs_of(directory))


def jobs_of(sweep: Path) -> list[str]:
    """Every job that holds or held a point of a sweep, in the order in which they were sent."""
    lines = map(json.loads, (sweep / "submissions.jsonl").read_text().splitlines())
    return [line["job"] for line in lines if line["event"] == "submitted"]


def kill_rank(job: Submitted, rank: int, point: str = "0") -> None:
    """As the kernel does it when memory is short, or a driver when a GPU falls off the bus."""
    told = json.loads((job.point(point) / "trace" / f"rank_{rank}.json").read_text())
    os.kill(told["pid"], signal.SIGKILL)


def wait_for_commit(job: Submitted, commits: int = 1, point: str = "0") -> None:
    """Until so many checkpoints are there."""
    wait_until(lambda: len(job.events(Committed, point)) >= commits, job)


def wait_until(condition: Callable[[], bool], job: Submitted) -> None:
    """With patience."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, f"{job.cluster.jobs(job.job_id)}\n{job.output()}"
        time.sleep(0.2)


def test_a_killed_rank_costs_its_point_some_steps_and_nobody_an_errand(submit: Submit, cluster: SlurmCluster) -> None:
    job = submit("+twin=0,1")
    wait_for_commit(job)
    node = cluster.job(f"{job.job_id}_0")["NodeList"]
    kill_rank(job, 1)
    for task in ("_0", "_1"):
        job.wait_for("COMPLETED", task)
    assert differences(job.point("0"), job.point("1")) == []
    (end,) = job.events(Ended)
    assert (end.code, end.verdict, end.follows, end.budget) == (137, "rank_died", "again", "crash")
    assert [event.step for event in job.events(Resumed)] == [0, max(each.step for each in job.events(Committed)) - 40]
    assert job.events(Started)[1].hosts != (node,)
    assert [cluster.job(f"{job.job_id}{task}")["Restarts"] for task in ("_0", "_1")] == ["1", "0"]
    assert f"hpc: job {job.job_id}_0 lost a rank to a signal: requeued without {node}." in job.output()
