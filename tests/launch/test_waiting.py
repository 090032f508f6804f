"""Sweepers that choose points by the values of others: they wait, with launch.wait, and are refused without."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hpc.run.result import read_result
from tests.conftest import Run

BASE = (
    "-m", "cluster=local", "hardware=cpu", "hardware.tasks_per_node=1", "run_dir=out", "launch.snapshot=false",
    "experiment.target=tests.programs.trials.value",
)  # fmt: skip
OPTUNA = ("hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=1", "hydra.sweeper.direction=minimize")
needs_optuna = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None
    or importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None,
    reason="hydra-optuna-sweeper is not installed",
)


def best(directory: Path) -> dict[str, object]:
    """What the sweeper found."""
    found = OmegaConf.to_container(OmegaConf.load(directory / "optimization_results.yaml"))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


@needs_optuna
def test_optuna_looks_for_the_best_value(run_py: Run, tmp_path: Path) -> None:
    search = (*OPTUNA, "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "+x=choice(1,2,3)", "launch.wait=true")
    refused = run_py(*BASE, *search[:-1])
    assert refused.returncode == 78
    assert refused.stderr.endswith("wait for their values with launch.wait=true.\n")
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    done = run_py(*BASE, *search)
    assert done.returncode == 0, done.stdout + done.stderr
    values = [read_result(path) for path in sorted((tmp_path / "out").glob("batch-*/*")) if path.name in "01"]
    assert len(values) == 4
    assert best(tmp_path / "out")["best_value"] == min(result.value for result in values if result is not None)


@needs_optuna
def test_pruned_and_failed_trials_are_told_apart(run_py: Run, tmp_path: Path) -> None:
    search = (
        *OPTUNA, "hydra.sweeper.sampler.seed=7", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=4",
        "hydra.sweeper.max_failure_rate=1", "+x=choice(1,2,3)", "+pruned_at=1", "+failed_at=3", "launch.wait=true",
        "hydra/job_logging=default", "hydra/hydra_logging=default",
    )  # fmt: skip
    done = run_py(*BASE, *search)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert best(tmp_path / "out")["best_params"] in ({"+x": 2}, {"x": 2})
    assert "was pruned, in " in said
    assert "not worth going on" in said
    assert "is failed and has no value, in " in said


def test_a_sweep_that_waits_ends_with_the_code_of_its_points(run_py: Run) -> None:
    done = run_py(*BASE, "launch.wait=true", "+x=1,2", "+failed_at=2", "launch.max_parallel=2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ValueError: asked to fail" in done.stderr
    batches = run_py(
        *BASE, "run_dir=batches", "hydra/sweeper=basic", "hydra.sweeper.max_batch_size=1", "launch.wait=true", "+x=1,2",
        "launch.detach=true",
    )  # fmt: skip
    assert batches.returncode == 0, batches.stdout + batches.stderr
