"""A container on a real Slurm: preempted, signalled and requeued, and nothing is different from a run without one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.run.events import Resumed, Started, Stopped
from hpc.testing.cluster import SlurmCluster
from hpc.testing.requirements import skip_or_fail_without_slurm
from tests.slurm.submitted import Submitted, preempt, submitted_from
from tests.support.equality import differences
from tests.support.image import MOUNT, PYTHON, make_image

pytestmark = pytest.mark.slurm

JOB = (
    "-m", "hardware=cpu", "hardware.nodes=2", "hardware.tasks_per_node=2", "hardware.time_limit_minutes=10",
    "experiment.target=tests.programs.jobs.train", "runtime.deterministic=true", "steps=60",
    "+cluster.sbatch.exclusive=true",
)  # fmt: skip


@pytest.fixture
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    reason = None if shutil.which("ch-run") else "Containers need ch-run on PATH: run hpc/testing/install.sh."
    skip_or_fail_without_slurm(request.node.name, reason, os.environ)
    return make_image(tmp_path / "image", mount_points=(tmp_path,))


@pytest.fixture
def jobs(cluster: SlurmCluster) -> Iterator[list[Submitted]]:
    """Whatever is still there at the end is cancelled."""
    submitted: list[Submitted] = []
    yield submitted
    cluster.run("scancel", *[job.job_id for job in submitted])


def test_a_run_in_a_container_is_bitwise_the_run_without_one(
    cluster: SlurmCluster, image: Path, jobs: list[Submitted], tmp_path: Path
) -> None:
    """The first life is told that time is up, the second one loses its nodes: both signals arrive at Python."""
    inside = (
        *("container=charliecloud", f"container.image={image}", f"container.python={PYTHON}"),
        f"container.mounts=['{MOUNT}']",
    )
    slow = "+job={step_seconds:0.1,trace:'${run_dir}/trace'}"
    job = submitted_from(tmp_path, cluster, tmp_path / "inside", *JOB, slow, *inside)
    jobs.append(job)
    outside = submitted_from(tmp_path, cluster, tmp_path / "outside", *JOB, "+job={step_seconds:0}")
    jobs.append(outside)
    job.wait_for_step(10)
    cluster.run("scancel", "--signal=USR2", job.job_id)
    job.wait_for("PENDING")
    job.wait_for_step(35)
    preempt(job)
    for each in (job, outside):
        each.wait_for("COMPLETED")
    stops = [event.step for event in job.events(Stopped)]
    assert len(stops) == 2
    assert [event.step for event in job.events(Resumed)] == [0, *stops]
    assert [event.interpreter for event in job.events(Started)] == [PYTHON] * 3
    assert differences(job.point(), outside.point()) == []
