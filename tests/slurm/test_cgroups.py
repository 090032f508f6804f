"""A Slurm that limits memory and ends what a job leaves behind, by the kernel's control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.run.events import Ended, Started
from hpc.status.sweep import look
from hpc.testing.cgroups import reason_no_cgroups_here
from hpc.testing.cluster import ClusterOptions, SlurmCluster
from hpc.testing.daemons import wait_until
from hpc.testing.plugin import why_no_slurm_here
from hpc.testing.requirements import skip_or_fail_without_slurm
from tests.slurm.submitted import Submitted, submitted_from

pytestmark = [pytest.mark.slurm, pytest.mark.faults]

JOB = (
    "-m", "hardware=cpu", "hardware.nodes=1", "hardware.tasks_per_node=2", "hardware.memory_gb=3",
    "experiment.target=tests.programs.jobs.train", "checkpoint.every_steps=10", "steps=20", "launch.snapshot=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """One node whose jobs get the memory that they have asked for, and no more."""
    if reason := reason_no_cgroups_here():
        pytest.skip(reason)
    skip_or_fail_without_slurm("limited", why_no_slurm_here(), os.environ)
    options = ClusterOptions(nodes=1, gpus_per_node=0, cgroups=True)
    with SlurmCluster(tmp_path_factory.mktemp("slurm"), options) as running:
        yield running


def submit(cluster: SlurmCluster, directory: Path, job: str) -> Submitted:
    return submitted_from(directory, cluster, directory / "run", *JOB, f"+job={{{job}}}")


def test_a_rank_that_takes_more_memory_than_the_job_has_is_named_and_not_tried_again(
    limited: SlurmCluster, tmp_path: Path
) -> None:
    """Fault 49: the kernel kills it within the job's control group, and srun and accounting say so."""
    job = submit(limited, tmp_path, "fail_rank:1,eat_step:15")
    limited.wait_for(job.job_id, "FAILED", "OUT_OF_MEMORY", timeout_seconds=300)
    (end,) = job.events(Ended)
    assert (end.verdict, end.follows) == ("out_of_memory", "nothing")
    assert limited.job(job.job_id)["Restarts"] == "0"
    (point,) = look(job.directory, limited.environment).points
    assert point.standing.cause is not None
    assert (
        point.standing.cause.kind,
        point.standing.cause.memory,
        point.standing.cause.rank,
        point.standing.cause.host,
    ) == ("oom", "cgroup", 1, "node1")
    assert "ran out of memory, and is not requeued" in job.output()


def test_what_a_program_leaves_behind_ends_with_its_job_and_costs_no_node(
    limited: SlurmCluster, tmp_path: Path
) -> None:
    """Fault 62: a daemon in a session of its own."""
    job = submit(limited, tmp_path, "left_behind:1234567")
    job.wait_for("COMPLETED")
    assert len(job.events(Started)) == 1
    wait_until(lambda: limited.processes_on("node1") == [], lambda: str(limited.processes_on("node1")), 120)
    states = limited.run("sinfo", "--noheader", "--format=%T").stdout.split()
    assert {*states} == {"idle"}, states
