"""Loops in Accelerate and in Lightning under the fixtures that everybody's tests may use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hpc.testing.cluster import SlurmCluster
from hpc.testing.daemons import wait_until
from tests.benchmarks.peer_environment import install_peers
from tests.conftest import ROOT
from tests.programs.loops_of_others.problem import Conditions

pytestmark = [pytest.mark.slurm, pytest.mark.faults]

JOB = """#!/bin/bash
#SBATCH --ntasks-per-node=2 --nodes=1 --requeue --open-mode=append
trap : TERM
srun --kill-on-bad-exit=1 "$PYTHON" -m "tests.programs.loops_of_others.$LOOP" "$CONDITIONS" && exit 0
scontrol requeue "$SLURM_JOB_ID"
"""
"""As on the page on tests: a life in which a rank has failed asks for another one."""
SECONDS = 600


@pytest.fixture(scope="module")
def python_of_peers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has Lightning."""
    return install_peers(tmp_path_factory.mktemp("peers"), ("lightning", "torchdata"))


@pytest.fixture(params=["with_accelerate", "with_lightning"])
def loop(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """A loop and an interpreter for it."""
    ours = request.param == "with_accelerate"
    return request.param, Path(sys.executable) if ours else request.getfixturevalue("python_of_peers")


def submit(slurm: SlurmCluster, loop: tuple[str, Path], conditions: Conditions) -> str:
    """Into the queue."""
    script = Path(conditions.run) / "job.sh"
    script.parent.mkdir(parents=True)
    script.write_text(JOB)
    name, python = loop
    environ = {"PYTHON": str(python), "LOOP": name, "CONDITIONS": conditions.words(), "PYTHONPATH": str(ROOT)}
    return slurm.run("sbatch", "--parsable", "job.sh", cwd=script.parent, env=environ).stdout.strip()


def wait_for_steps(conditions: Conditions, number: int) -> None:
    """Until so many steps have been taken, in all lives together."""
    trace, said = Path(conditions.trace) / "rank_0.txt", Path(conditions.run)
    wait_until(
        lambda: trace.exists() and len(trace.read_text().split()) >= number,
        lambda: "\n".join(path.read_text() for path in said.glob("slurm-*.out")),
        SECONDS,
        0.2,
    )


def test_it_goes_on_after_a_preemption_and_a_killed_rank_and_ends_as_if_left_alone(
    loop: tuple[str, Path],
    slurm: SlurmCluster,
    preempt: Callable[[str], str],
    kill_rank: Callable[[str, int], int],
    tmp_path: Path,
) -> None:
    golden = Conditions(str(tmp_path / "golden"), str(tmp_path / "golden" / "trace"), step_seconds=0)
    slurm.wait_for(submit(slurm, loop, golden), "COMPLETED", timeout_seconds=SECONDS)
    conditions = Conditions(str(tmp_path / "run"), str(tmp_path / "run" / "trace"), step_seconds=0.5)
    job = submit(slurm, loop, conditions)
    wait_for_steps(conditions, 12)
    preempt(job)
    slurm.wait_for(job, "PENDING", timeout_seconds=SECONDS)
    taken = len((tmp_path / "run" / "trace" / "rank_0.txt").read_text().split())
    wait_for_steps(conditions, taken + 12)
    kill_rank(job, 1)
    slurm.wait_for(job, "COMPLETED", timeout_seconds=SECONDS)
    assert slurm.job(job)["Restarts"] == "2"
    first, second = (torch.load(tmp_path / name / "trace" / "result.pt") for name in ("golden", "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)
