"""Ranks that do not go on, on a real Slurm: the job is running again by itself, and nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from hpc.run.events import Failed, Resumed, Started
from hpc.run.pulse import read_pulses
from hpc.testing.cluster import SlurmCluster
from tests.slurm.test_first_light import Submit, golden, submit
from tests.support.equality import differences
from tests.support.local_sweep import wait_for

__all__ = ["golden", "submit"]
pytestmark = [pytest.mark.slurm, pytest.mark.faults]


def test_a_stopped_rank_ends_the_attempt_and_the_next_one_goes_on(submit: Submit, golden: Path) -> None:
    job = submit("checkpoint.every_steps=20", "runtime.deterministic=true")
    job.wait_for_step(45)
    pulse = read_pulses(job.point())[3]
    os.kill(pulse.pid, signal.SIGSTOP)
    stopped = time.time()
    wait_for(lambda: job.events(Failed), "the hang is noticed")
    (failed,) = job.events(Failed)
    assert failed.code == 70
    assert f"rank 3 on {pulse.host} is stopped (SIGSTOP)" in failed.reason
    wait_for(lambda: len(job.events(Resumed)) > 1, f"another attempt goes on: {job.output()}")
    again = job.events(Resumed)[-1]
    print(f"noticed after {failed.time - stopped:.0f} s, running again after {again.time - stopped:.0f} s")
    assert again.step >= 20
    job.wait_for("COMPLETED")
    assert len(job.events(Started)) == 2
    assert pulse.host not in job.events(Started)[1].hosts
    assert differences(job.point(), golden) == []
    stacks = "".join(path.read_text() for path in (job.point() / "hangs").iterdir())
    assert f"rank 3 on {pulse.host}" in stacks
    assert "State: T (stopped)" in stacks


def test_a_job_that_is_suspended_and_resumed_does_not_hang(submit: Submit, golden: Path, cluster: SlurmCluster) -> None:
    job = submit("runtime.hang_seconds=20")
    job.wait_for_step(30)
    cluster.run("scontrol", "suspend", job.job_id)
    before = job.steps()
    time.sleep(40)  # longer than any limit that is in force: were it counted, the job would end
    assert job.steps() == before
    cluster.run("scontrol", "resume", job.job_id)
    job.wait_for("COMPLETED")
    assert job.events(Failed) == []
    assert len(job.events(Started)) == 1
    assert differences(job.point(), golden) == []
