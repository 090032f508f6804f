"""The whole path on a real Slurm: submitted, preempted, timed out, cancelled, failed; and nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc.run.events import Resumed, Started, Stopped
from hpc.testing.cluster import SlurmCluster
from tests.conftest import ROOT, clean_environment
from tests.slurm.submitted import Submitted, preempt, submitted_from
from tests.support.equality import differences

pytestmark = pytest.mark.slurm

STEPS = 120
JOB = (
    "-m", "hardware=cpu", "hardware.nodes=2", "hardware.tasks_per_node=2", "hardware.time_limit_minutes=10",
    "experiment.target=tests.programs.jobs.train", "runtime.deterministic=true", "checkpoint.every_steps=50",
    f"steps={STEPS}",
)  # fmt: skip


Submit = Callable[..., Submitted]


@pytest.fixture
def submit(cluster: SlurmCluster, tmp_path: Path) -> Iterator[Submit]:
    """Type `python run.py -m ...` on the login side; whatever is still there at the end is cancelled."""
    submitted: list[Submitted] = []

    def send(*arguments: str, step_seconds: float = 0.1, **job: Any) -> Submitted:
        directory = tmp_path / f"run{len(submitted)}"
        settings = {"step_seconds": step_seconds, "trace": "${run_dir}/trace", **job}
        words = ",".join(
            f"{name}:'{value}'" if isinstance(value, str) else f"{name}:{value}" for name, value in settings.items()
        )
        submitted.append(submitted_from(tmp_path, cluster, directory, *JOB, f"+job={{{words}}}", *arguments))
        return submitted[-1]

    yield send
    cluster.run("scancel", *[job.job_id for job in submitted])


@pytest.fixture(scope="module")
def golden(cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The point that nobody interrupted."""
    directory = tmp_path_factory.mktemp("golden")
    subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *JOB, f"run_dir={directory / 'run'}", "+job={step_seconds:0}"],
        cwd=directory, env={**clean_environment(), **cluster.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (directory / "run" / "0" / "finished.json").exists():
        assert time.monotonic() < deadline, "the uninterrupted run did not finish"
        time.sleep(0.2)
    return directory / "run" / "0"


def states(cluster: SlurmCluster, job_id: str) -> list[tuple[str, str]]:
    """State and exit code of every life in the accounting, once the last one is there."""
    deadline = time.monotonic() + 20
    while True:
        records = [(r["State"].split()[0], r["ExitCode"]) for r in cluster.records(job_id) if r["JobID"] == job_id]
        if (records and records[-1][0] not in ("RUNNING", "PENDING")) or time.monotonic() > deadline:
            return records
        time.sleep(0.5)


def assert_nothing_is_left(cluster: SlurmCluster) -> None:
    """No process of a job on any node, within KillWait and a little."""
    deadline = time.monotonic() + 10
    while True:
        left = [process for number in range(1, 5) for process in cluster.processes_on(f"node{number}")]
        if not left:
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def test_a_sweep_of_two_points_on_two_nodes_each_completes(submit: Submit, cluster: SlurmCluster) -> None:
    job = submit("seed=0,1", step_seconds=0.0)
    for task in ("_0", "_1"):
        job.wait_for("COMPLETED", task)
        assert states(cluster, f"{job.job_id}{task}") == [("COMPLETED", "0:0")]
    worlds = [event for point in ("0", "1") for event in job.events(Started, point)]
    assert [(event.source, event.world_size, len(event.hosts)) for event in worlds] == [("slurm", 4, 2)] * 2
    assert all((job.point(point) / "finished.json").exists() for point in ("0", "1"))  # the job compares weights itself


@pytest.mark.parametrize("grace_seconds", [0, 30])
def test_a_run_preempted_twice_is_bitwise_the_uninterrupted_one(
    submit: Submit, cluster: SlurmCluster, golden: Path, grace_seconds: int
) -> None:
    cluster.set_grace("low", grace_seconds)
    try:
        job = submit()
        for step in (20, 70):
            job.wait_for_step(step)
            preempt(job)
            job.wait_for("PENDING", seconds=200)
        job.wait_for("COMPLETED")
    finally:
        cluster.set_grace("low", 0)
    stops = [event.step for event in job.events(Stopped)]
    resumes = [event.step for event in job.events(Resumed)]
    assert len(stops) == 2
    assert resumes == [0, *stops]  # no step is lost, none is repeated
    assert differences(job.point(), golden) == []
    assert [state for state, _ in states(cluster, job.job_id)][-1] == "COMPLETED"
    assert int(cluster.job(job.job_id)["Restarts"]) == 2


def test_a_run_that_meets_its_time_limit_goes_on_in_another_life(submit: Submit, golden: Path) -> None:
    longer_than_a_life = (60 - 10) / STEPS  # however fast the machine
    job = submit("hardware.time_limit_minutes=1", "cluster.grace_seconds=10", step_seconds=longer_than_a_life)
    job.wait_for("COMPLETED", seconds=900)
    stops = [event.step for event in job.events(Stopped)]
    assert stops
    assert [event.step for event in job.events(Resumed)] == [0, *stops]
    assert differences(job.point(), golden) == []


def test_a_cancelled_job_stays_cancelled(submit: Submit, cluster: SlurmCluster) -> None:
    job = submit()
    job.wait_for_step(10)
    cluster.run("scancel", job.job_id)
    job.wait_for("CANCELLED", seconds=200)
    assert_nothing_is_left(cluster)
    time.sleep(2 * cluster.options.cred_expire_seconds)  # a requeued job would be eligible again by now
    assert cluster.job(job.job_id)["JobState"] == "CANCELLED"
    assert cluster.job(job.job_id)["Restarts"] == "0"
    assert [state for state, _ in states(cluster, job.job_id)] == ["CANCELLED"]


def test_a_failing_rank_fails_the_job_and_is_named_first(submit: Submit, cluster: SlurmCluster) -> None:
    job = submit(fail_rank=3, fail_step=10)
    job.wait_for("FAILED", seconds=300)
    assert_nothing_is_left(cluster)
    assert states(cluster, job.job_id) == [("FAILED", "1:0")]
    assert cluster.job(job.job_id)["Restarts"] == "0"
    (record,) = (job.point() / "failures").glob("*.txt")
    assert record.read_text().startswith("hpc: rank 3 of 4 on node2 failed first:\nTraceback")
    assert "ValueError: asked to fail at step 10" in record.read_text()
    batch_log = (job.directory / "submitit" / f"{job.job_id}_0_log.out").read_text()
    assert record.read_text() in batch_log


def test_a_killed_rank_is_named_by_what_srun_says_of_it(submit: Submit, cluster: SlurmCluster) -> None:
    job = submit("launch.max_crashes=1")
    job.wait_for_step(10)
    told = json.loads((job.point() / "trace" / "rank_3.json").read_text())
    os.kill(told["pid"], signal.SIGKILL)
    job.wait_for("FAILED", seconds=300)
    assert_nothing_is_left(cluster)
    nodes = cluster.run("sinfo", "--noheader", "--Node", "--format=%t").stdout.split()
    assert not [state for state in nodes if state.startswith(("drain", "drng", "down", "fail"))]
    log = job.output()
    assert "hpc: " in log
    done = subprocess.run(
        [sys.executable, "-m", "hpc", "status", str(job.directory), "--json"],
        env={**clean_environment(), **cluster.environment}, capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    (point,) = json.loads(done.stdout)["points"]
    found = {name: point["cause"][name] for name in ("kind", "rank", "host", "signal", "told_by")}
    told_by_exit = {"kind": "killed", "rank": 3, "host": "node2", "signal": "SIGKILL", "told_by": "exit"}
    assert (point["state"], found) == ("failed", told_by_exit), log


def test_only_the_preempted_task_of_an_array_is_requeued(submit: Submit, cluster: SlurmCluster) -> None:
    job = submit("seed=0,1", "+cluster.sbatch.exclusive=true")  # each on nodes of its own
    for point in ("0", "1"):
        job.wait_for_step(10, point)
    last = cluster.job(f"{job.job_id}_1")["JobId"]
    assert last == job.job_id  # asked to requeue a job of this number, Slurm would take the whole array for it
    preempt(job, "_1")
    for task in ("_0", "_1"):
        job.wait_for("COMPLETED", task)
    restarts = [cluster.job(f"{job.job_id}{task}")["Restarts"] for task in ("_0", "_1")]
    assert restarts == ["0", "1"]
    assert [len(job.events(Started, point)) for point in ("0", "1")] == [1, 2]
