"""The same command once more, on a real Slurm: nothing twice, nothing left out, whenever the first one was killed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc import failpoints
from hpc.run.calls import Call, record_void
from hpc.run.submissions import Submission, newest_jobs
from hpc.testing.cluster import SlurmCluster
from tests.conftest import ROOT

pytestmark = pytest.mark.slurm

COMMAND = (
    *(sys.executable, str(ROOT / "run.py"), "-m", "hardware=cpu", "hardware.nodes=1", "hardware.tasks_per_node=1"),
    *("hardware.time_limit_minutes=10", "experiment.target=tests.programs.trials.value", "+x=1"),
    *("+cluster.sbatch.hold=true", "launch.snapshot=false"),
)
Type = Callable[..., "subprocess.CompletedProcess[str]"]
LOSES_THE_ANSWER = """#!/bin/sh
{sbatch} "$@" && echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
exit 1
"""


@pytest.fixture
def typed(environ: dict[str, str], cluster: SlurmCluster, tmp_path: Path) -> Iterator[Type]:
    """The command on the login side, with these words and variables more; its jobs are held."""

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words], cwd=tmp_path, env={**environ, **variables},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    yield run
    cluster.run("scancel", "--user=root")


def queued(cluster: SlurmCluster, directory: Path) -> list[str]:
    """Every job, and task of an array, that the queue has of a sweep."""
    lines = cluster.run("squeue", "--array", "--noheader", "--format=%i|%k").stdout.splitlines()
    return sorted(job for job, _, comment in (line.partition("|") for line in lines) if comment == directory.name)


def noted(directory: Path) -> dict[str, str]:
    """By point: the job that the sweep's record has for it."""
    return {point: job.id for point, job in newest_jobs(directory).items()}


def test_whenever_a_command_is_killed_the_next_one_submits_each_point_once(
    typed: Type, cluster: SlurmCluster, tmp_path: Path
) -> None:
    for name in failpoints.SUBMISSIONS:
        directory = tmp_path / f"killed-{name}"
        if name == "extended":
            assert typed("seed=0,1", f"run_dir={directory}").returncode == 0
        killed = typed("seed=0,1,2", f"run_dir={directory}", HPC_FAILPOINT=name)
        assert killed.returncode == -9, (name, killed.stdout, killed.stderr)
        again = typed("seed=0,1,2", f"run_dir={directory}")
        assert again.returncode == 0, (name, again.stderr)
        jobs = queued(cluster, directory)
        assert len(jobs) == 3, (name, jobs)
        assert sorted(noted(directory).values()) == jobs, name
        assert [path.name for path in (directory / "submitit").glob(".*")] == [], name
    third = typed("seed=0,1,2", f"run_dir={directory}")
    assert "Plan: running 3.\n" in third.stdout, (third.stdout, third.stderr)
    assert queued(cluster, directory) == jobs


def test_an_answer_that_is_lost_and_a_job_that_comes_too_late(
    typed: Type, cluster: SlurmCluster, environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    real = cluster.run("sh", "-c", "command -v sbatch").stdout.strip()
    (tmp_path / "bin" / "sbatch").write_text(LOSES_THE_ANSWER.format(sbatch=real))
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    directory = tmp_path / "lost"
    done = typed("seed=0", f"run_dir={directory}", PATH=f"{tmp_path / 'bin'}:{environ['PATH']}")
    assert done.returncode == 0, done.stderr
    (job,) = queued(cluster, directory)
    assert noted(directory) == {"0": job}
    record_void(directory, Call(0, "", Submission("", ("0",), 0.0)))  # as when nobody has found it
    cluster.run("scontrol", "release", job)
    cluster.wait_for(job, "FAILED", timeout_seconds=120)
    assert "must leave" in (directory / "submitit" / f"{job}_0_log.out").read_text()
    assert not (directory / "0").exists()


def test_arrays_share_what_may_run_at_once_with_those_in_the_queue(
    typed: Type, cluster: SlurmCluster, tmp_path: Path
) -> None:
    directory = tmp_path / "shared"
    two = ("launch.max_parallel=2", f"run_dir={directory}")
    assert typed("seed=0,1", *two).returncode == 0
    first = noted(directory)["0"].partition("_")[0]
    more = typed("seed=0,1,2,3", *two)
    assert "Plan: submit 2, running 2.\n" in more.stdout, more.stderr
    assert "ArrayTaskThrottle=1 " in cluster.run("scontrol", "show", "job", first, "--oneliner").stdout
    second = noted(directory)["2"].partition("_")[0]
    assert "ArrayTaskThrottle=1 " in cluster.run("scontrol", "show", "job", second, "--oneliner").stdout
    last = typed("seed=0,1,2,3,4", *two)
    assert "Plan: submit 1, running 4.\n" in last.stdout, last.stderr
    waits = re.search(r"Dependency=(\S+)", cluster.run("scontrol", "show", "job", noted(directory)["4"]).stdout)
    assert waits is not None
    assert {*re.findall(r"afterany:(\d+)", waits[1])} == {first, second}
