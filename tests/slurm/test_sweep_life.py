"""A sweep on a real Slurm from submission to results, seen and steered with the verbs alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc.testing.cluster import SlurmCluster
from tests.conftest import ROOT

pytestmark = pytest.mark.slurm

SWEEP = (
    *("-m", "hardware=cpu", "hardware.nodes=1", "hardware.tasks_per_node=1", "hardware.time_limit_minutes=10"),
    *("experiment.target=tests.programs.jobs.train", "cluster.max_parallel_points=1", "runtime.log_every_steps=1"),
    *("steps=80", "+job={step_seconds:0.1,fail_rank:0}", "+job.fail_step=3,1000,2000"),
)
"""Point 0 fails at step 3; the others wait for it, and for each other."""
Verb = Callable[..., Any]


@pytest.fixture
def verb(environ: dict[str, str], cluster: SlurmCluster, tmp_path: Path) -> Iterator[Verb]:
    """`hpc VERB ...` on the login side, outside of the project; what it printed, or the JSON of that."""

    def run(*arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "hpc", *arguments],
            cwd=tmp_path, env={**environ, "XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "100"},
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    yield run
    cluster.run("scancel", "--user=root")


def wait_for(verb: Verb, is_so: Callable[[list[dict[str, Any]]], Any], seconds: float = 300) -> list[dict[str, Any]]:
    """The points, once they are so."""
    deadline = time.monotonic() + seconds
    while True:
        points: list[dict[str, Any]] = verb("status", "--json")["points"]
        if is_so(points):
            return points
        assert time.monotonic() < deadline, json.dumps(points, indent=1)
        time.sleep(0.5)


def test_a_sweep_is_seen_and_steered_from_its_submission_to_its_results(verb: Verb, tmp_path: Path) -> None:
    assert "3 points on cpu" in verb("run", *SWEEP, "run_dir=out", f"--config-path={ROOT / 'conf'}")
    points = wait_for(verb, lambda points: points[2]["reason"] == "JobArrayTaskLimit")
    assert points[2]["state"] == "pending"
    assert "As many points of this sweep run as cluster.max_parallel_points allows." in verb("status")

    points = wait_for(verb, lambda points: points[0]["state"] == "failed")
    assert (points[0]["cause"]["kind"], points[0]["cause"]["rank"], points[0]["attempt"]) == ("crash", 0, 1)
    assert "asked to fail" in points[0]["cause"]["text"] or points[0]["cause"]["text"]
    assert "Error" in verb("logs", "fail_step=3")

    assert verb("cancel", "2") == f"Cancelled point 2 (pending) of {tmp_path / 'out'}.\n"
    points = wait_for(verb, lambda points: (points[1]["step"] or 0) > 1)
    assert points[2]["state"] == "cancelled"
    assert (points[1]["state"] in ("running", "saving"), points[1]["total_steps"]) == (True, 80)
    assert points[1]["nodes"][0].startswith("node")
    assert points[1]["allocation_seconds_left"] < 600

    retried = verb("retry", "--set", "hardware.time_limit_minutes=9", "--json")
    assert retried["points"] == ["0"]
    assert verb("resume", "--json")["points"] == ["2"]
    points = wait_for(
        verb,
        lambda points: (
            [each["state"] for each in points] == ["failed", "finished", "finished"] and points[0]["attempt"] == 2
        ),
    )
    assert points[0]["overrides"]["hardware.time_limit_minutes"] == "9"
    assert points[1]["step"] == 80
    rows = verb("results", "--json", "--best", "loss:min")["points"]
    assert [row["step"] for row in rows[1:]] == [80, 80]
    assert all(row["best_loss"] <= row["loss"] for row in rows[1:])
    assert "step 80/80" in verb("logs", "1", "--rank", "0", "-f")
    assert str(tmp_path / "out") in verb("ls")
