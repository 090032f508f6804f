"""A command that waits for its points on a real Slurm: for their values, or until somebody interrupts it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.run.result import read_result
from hpc.testing.cluster import SlurmCluster
from tests.conftest import ROOT
from tests.launch.test_waiting import best, needs_optuna

pytestmark = pytest.mark.slurm

COMMAND = (
    *(sys.executable, str(ROOT / "run.py"), "-m", "hardware=cpu", "hardware.nodes=1", "hardware.tasks_per_node=1"),
    *("hardware.time_limit_minutes=10", "launch.wait=true", "experiment.target=tests.programs.trials.value"),
)


@needs_optuna
def test_optuna_gets_values_from_slurm(environ: dict[str, str], tmp_path: Path) -> None:
    search = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2", "+x=choice(1,2)")
    done = subprocess.run(
        [*COMMAND, *search, "run_dir=out", "hydra.sweeper.sampler.seed=1"],
        cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 points on cpu" in done.stdout
    results = [read_result(tmp_path / "out" / "batch-0" / name) for name in "01"]
    assert best(tmp_path / "out")["best_value"] == min(result.value for result in results if result is not None)


def test_an_interrupt_says_what_still_runs(environ: dict[str, str], cluster: SlurmCluster, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "+x=1,2", "run_dir=out", "+cluster.sbatch.hold=true"],
        cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    while "Waiting for 2 point(s)" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 130, said
    assert "2 point(s) of" in said
    assert f"(0, 1): `hpc cancel {tmp_path / 'out'}` ends them" in said
    assert "Traceback" not in said
    cluster.run("scancel", "--user=root")
