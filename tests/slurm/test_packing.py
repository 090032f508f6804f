"""Several points in one job, on a real Slurm: each has an end of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpc.run.events import Started
from hpc.run.result import read_result
from hpc.testing.cluster import SlurmCluster
from tests.slurm.submitted import Submitted, preempt, submitted_from

pytestmark = pytest.mark.slurm

SWEEP = (
    *("-m", "hardware=cpu", "hardware.nodes=1", "hardware.tasks_per_node=1", "hardware.cpus_per_task=4"),
    *("hardware.memory_gb=1", "hardware.time_limit_minutes=10", "experiment.target=tests.programs.jobs.train"),
    *("launch.per_job=3", "launch.snapshot=false", "steps=300", "runtime.deterministic=true"),
    *(
        "+job={step_seconds:1,fail_rank:0,trace:'${run_dir}/trace',hurry:'${run_dir}/../hurry'}",
        "+job.fail_step=5,1000,1001,1002,1003,1004",
    ),
)
"""Point 0 fails; its job has points 1 and 2 as well, which do the same as 3 to 5."""


def states(job: Submitted, environ: dict[str, str]) -> list[str]:
    return [each["state"] for each in told(job, environ)]


def told(job: Submitted, environ: dict[str, str]) -> list[dict[str, Any]]:
    done = hpc("status", job, environ, "--json")
    return list(json.loads(done)["points"])


def hpc(verb: str, job: Submitted, environ: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hpc", verb, str(job.directory), *words],
        env=environ, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_only_what_is_unfinished_goes_on(cluster: SlurmCluster, environ: dict[str, str], tmp_path: Path) -> None:
    job = submitted_from(tmp_path, cluster, tmp_path / "packed", *SWEEP)
    try:
        for point in "12345":
            job.wait_for_step(6, point)
        deadline = time.monotonic() + 300
        while states(job, environ)[0] != "failed":
            assert time.monotonic() < deadline, (states(job, environ), job.output())
            time.sleep(1)
        assert [each["job"] for each in told(job, environ)] == [
            f"{job.job_id}_{task}.{lane}" for task in (0, 1) for lane in (0, 1, 2)
        ]
        assert "Cancelled point 5 (running" in hpc("cancel", job, environ, "5")
        preempt(job, "_0")
        while cluster.job(f"{job.job_id}_0")["Restarts"] != "1":
            assert time.monotonic() < deadline, job.output()
            time.sleep(1)
        (job.directory / "hurry").touch()
        job.wait_for("FAILED", "_0")
        job.wait_for("COMPLETED", "_1")
    finally:
        cluster.run("scancel", job.job_id, check=False)
    assert cluster.job(f"{job.job_id}_0")["Restarts"] == "1"
    assert states(job, environ) == ["failed", *["finished"] * 4, "cancelled"]
    lives = [len({each.attempt for each in job.events(Started, str(point))}) for point in range(6)]
    assert lives == [1, 2, 2, 1, 1, 1]
    results = [read_result(job.point(str(point))) for point in (1, 2, 3, 4)]
    assert len({repr(each.value) for each in results if each is not None}) == 1
    assert None not in results
    assert "asked to fail at step 5" in hpc("logs", job, environ, "0")
    assert "asked to fail" not in hpc("logs", job, environ, "1")
