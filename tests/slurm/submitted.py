"""A job that was submitted as a person does it, and what becomes of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from hpc.testing.cluster import SlurmCluster
from tests.conftest import ROOT, clean_environment
from tests.support.events import Kind, told


@dataclass(frozen=True)
class Submitted:
    """A job of this project in the queue.

    Args:
        cluster: Where.
        job_id: As squeue shows it.
        directory: Of the sweep.
    """

    cluster: SlurmCluster
    job_id: str
    directory: Path

    def point(self, name: str = "0") -> Path:
        """A point's directory."""
        return self.directory / name

    def steps(self, point: str = "0") -> dict[int, int]:
        """The step each rank is in."""
        files = (self.point(point) / "trace").glob("rank_*.json")
        return {int(path.stem.removeprefix("rank_")): _read(path).get("step", 0) for path in files}

    def wait_for_step(self, step: int, point: str = "0", seconds: float = 300) -> None:
        """Return once rank 0 has reached a step."""
        deadline = time.monotonic() + seconds
        while self.steps(point).get(0, 0) < step:
            if time.monotonic() > deadline:
                raise TimeoutError(f"step {step} was not reached: {self.cluster.jobs(self.job_id)}\n{self.output()}")
            time.sleep(0.1)

    def events(self, kind: type[Kind], point: str = "0") -> list[Kind]:
        """What the journal says."""
        return told(self.point(point), kind)

    def output(self) -> str:
        """Everything any task printed."""
        return "\n".join(path.read_text() for path in sorted((self.directory / "submitit").glob("*_log.out")))

    def wait_for(self, state: str, task: str = "", seconds: float = 400) -> None:
        """Return once the job is in a state, whatever it goes through."""
        try:
            self.cluster.wait_for(f"{self.job_id}{task}", state, timeout_seconds=seconds)
        except Exception as error:
            raise AssertionError(f"{error}\n{self.output()}") from error


def _read(path: Path) -> dict[str, int]:
    try:
        return dict(json.loads(path.read_text()))
    except ValueError:
        return {}


def submitted_from(cwd: Path, cluster: SlurmCluster, directory: Path, *arguments: str, **environ: str) -> Submitted:
    """Type `python run.py ...` on the login side.

    Args:
        cwd: Where.
        cluster: To which the login node belongs.
        directory: Of the sweep: `run_dir`.
        arguments: The other ones.
        environ: More variables, such as a person has in a shell.
    """
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments, f"run_dir={directory}"],
        cwd=cwd, env={**clean_environment(), **cluster.environment, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = re.search(r"Submitted job (\d+)", done.stdout)
    assert found, done.stdout
    return Submitted(cluster, found[1], directory)


def preempt(job: Submitted, task: str = "") -> str:
    """Take the job's nodes for a job of a higher partition; returns that job's id."""
    nodes = job.cluster.job(f"{job.job_id}{task}")["NodeList"]
    done = job.cluster.run(
        "sbatch",
        "--parsable",
        "--partition=high",
        f"--nodelist={nodes}",
        "--exclusive",
        "--output=/dev/null",
        "--wrap=sleep 1",
    )
    return done.stdout.strip()
