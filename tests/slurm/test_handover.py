"""Lives of a job that end without a person's wish, on a real Slurm: the run goes on by itself, or says why not."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc.run.events import Committed, Ended, Resumed, Started, Stopped
from hpc.testing.cluster import SlurmCluster
from tests.conftest import ROOT
from tests.slurm.submitted import Submitted, preempt, submitted_from
from tests.support.equality import differences

pytestmark = pytest.mark.slurm

JOB = (
    "-m", "hardware=cpu", "hardware.nodes=1", "hardware.tasks_per_node=2", "hardware.time_limit_minutes=20",
    "experiment.target=tests.programs.jobs.train", "runtime.deterministic=true", "checkpoint.every_steps=20",
    "steps=60", "launch.snapshot=false",
)  # fmt: skip
PYTHONPATH = {"PYTHONPATH": str(ROOT)}
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
    wait_until(lambda: _killed(job.point(point) / "trace" / f"rank_{rank}.json"), job)


def _killed(trace: Path) -> bool:
    """False where the rank has not come up yet in this life; the next one must leave a trace of its own."""
    if not trace.exists():
        return False
    os.kill(json.loads(trace.read_text())["pid"], signal.SIGKILL)
    trace.unlink()
    return True


def wait_for_commit(job: Submitted, commits: int = 1, point: str = "0") -> None:
    """Until so many checkpoints are there."""
    wait_until(lambda: len(job.events(Committed, point)) >= commits, job)


def wait_until(condition: Callable[[], bool], job: Submitted) -> None:
    """With patience."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, f"{job.cluster.jobs(job.job_id)}\n{job.output()}"
        time.sleep(0.2)


@pytest.fixture
def cancelling(cluster: SlurmCluster) -> Iterator[None]:
    """Jobs of the partition are preempted by being cancelled."""
    cluster.run("scontrol", "update", "partitionname=low", "preemptmode=cancel")
    yield
    cluster.run("scontrol", "update", "partitionname=low", "preemptmode=requeue")


@pytest.fixture
def away(cluster: SlurmCluster) -> Iterator[Callable[[], None]]:
    """Kills the controller; whatever happens, it is back at the end."""
    yield cluster.daemon("slurmctld").kill
    cluster.daemon("slurmctld").start_again()


@pytest.mark.faults
def test_a_controller_that_is_away_when_a_run_hands_over_is_waited_for(
    submit: Submit, cluster: SlurmCluster, away: Callable[[], None]
) -> None:
    job = submit(step_seconds=0.5)
    job.wait_for_step(5)
    saved, now = cluster.directory / "state" / "job_state", time.time()
    cluster.run("scontrol", "update", f"jobid={job.job_id}", "admincomment=save")
    wait_until(lambda: saved.stat().st_mtime > now, job)  # what it has not saved, a killed one forgets
    away()
    trace = job.point() / "trace" / "rank_0.json"
    os.kill(json.loads(trace.read_text())["pid"], signal.SIGUSR2)  # a killed one may still hold what scancel asked for
    wait_until(lambda: bool(job.events(Stopped)), job)
    time.sleep(15)  # that the controller is away for long is what this is about
    cluster.daemon("slurmctld").start_again()
    job.wait_for("COMPLETED")
    (stopped,) = job.events(Stopped)
    assert [event.step for event in job.events(Resumed)] == [0, stopped.step]
    assert [(end.verdict, end.follows) for end in job.events(Ended)] == [("stopped", "again")]
    assert cluster.job(job.job_id)["Restarts"] == "1"


@pytest.mark.faults
def test_a_job_without_requeue_goes_on_in_one_that_follows_it(submit: Submit, cluster: SlurmCluster) -> None:
    job = submit("+twin=0,1", "+cluster.sbatch.no-requeue=true")
    wait_for_commit(job, point="1")
    kill_rank(job, 0, "1")
    wait_until(lambda: len(jobs_of(job.directory)) == 2, job)
    successor = Submitted(cluster, jobs_of(job.directory)[1], job.directory)
    job.wait_for("FAILED", "_1")
    successor.wait_for("COMPLETED", "_1")
    job.wait_for("COMPLETED", "_0")
    assert differences(job.point("0"), job.point("1")) == []
    assert [end.verdict for end in job.events(Ended, "1")] == ["rank_died"]
    shown = cluster.run(
        sys.executable, "-m", "hpc", "status", str(job.directory), "--json", env=PYTHONPATH, timeout=120
    )
    assert [point["state"] for point in json.loads(shown.stdout)["points"]] == ["finished", "finished"]
    assert cluster.run("squeue", "--noheader", f"--jobs={','.join(jobs_of(job.directory))}").stdout == ""


@pytest.mark.faults
@pytest.mark.usefixtures("cancelling")
@pytest.mark.parametrize("requeue", [True, False])
def test_a_job_that_is_preempted_by_being_cancelled_goes_on(
    submit: Submit, cluster: SlurmCluster, requeue: bool
) -> None:
    """Without grace, Slurm ends it for good; a requeue in that moment, or a job that follows, takes the run further."""
    job = submit(*([] if requeue else ["+cluster.sbatch.no-requeue=true"]))
    wait_for_commit(job)
    preempt(job)
    wait_until(lambda: (job.point() / "finished.json").exists(), job)
    (stopped,) = job.events(Stopped)
    assert [event.step for event in job.events(Resumed)] == [0, stopped.step]
    assert [(end.verdict, end.follows) for end in job.events(Ended)] == [("preempted_for_good", "again")]
    Submitted(cluster, jobs_of(job.directory)[-1], job.directory).wait_for("COMPLETED")
    assert len(jobs_of(job.directory)) == (1 if requeue else 2)


@pytest.mark.faults
def test_a_run_that_crashes_without_a_new_checkpoint_ends_and_says_so(submit: Submit, cluster: SlurmCluster) -> None:
    job = submit("launch.max_crashes=2", "launch.exclude_failed_nodes=false", step_seconds=1.0)
    for _ in range(2):
        kill_rank(job, 1)
    job.wait_for("FAILED")
    assert cluster.job(job.job_id)["ExitCode"] == "76:0"
    assert "lost a rank to a signal, and launch.max_crashes=2 is reached without a new checkpoint" in job.output()
    assert [(end.code, end.follows) for end in job.events(Ended)] == [(137, "again"), (137, "nothing")]


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
