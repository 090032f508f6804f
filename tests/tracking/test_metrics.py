"""A run that diverges stops, saves nothing of it, and says so; one that only skipped a step goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from hpc import Runtime
from hpc.checkpoint.retention import Retention
from hpc.checkpoint.store import CheckpointStore
from hpc.errors import DivergedError
from hpc.run.events import Diverged
from hpc.stop.requests import StopCause, stop_requests
from hpc.tracking.metrics import Metrics
from tests.conftest import Run
from tests.programs.jobs import Points
from tests.support.events import told


def run(directory: Path, bad_step: int, options: dict[str, Any], **bad: float) -> None:
    config = {
        "run_dir": str(directory),
        "runtime": {"device": "cpu", **options},
        "checkpoint": {"every_steps": 4},
    }
    with Runtime(config) as runtime:
        for _ in runtime.steps(runtime.prepare(DataLoader(Points(), 4)), total=10):
            values = {"loss": 1.0, "grad_norm": 1.0, "ratio": 1.0}
            runtime.log({**values, **(bad if runtime.step == bad_step else {})})


def committed(directory: Path) -> list[int]:
    return [checkpoint.step for checkpoint in CheckpointStore(directory / "checkpoints", Retention(9)).list()]


@pytest.mark.parametrize(("name", "value"), [("loss", math.nan), ("grad_norm", math.inf)])
@pytest.mark.parametrize("bad_step", [6, 8, 10])
def test_a_run_that_diverges_commits_nothing_of_it(tmp_path: Path, name: str, value: float, bad_step: int) -> None:
    with pytest.raises(DivergedError, match=f"{name} must stay finite, but is {value} at step {bad_step}"):
        run(tmp_path, bad_step, {}, **{name: value})
    assert max(committed(tmp_path)) == 4 * ((bad_step - 1) // 4)
    assert told(tmp_path, Diverged)
    assert stop_requests().cause is StopCause.NONE


def test_other_values_may_be_infinite(tmp_path: Path) -> None:
    run(tmp_path, 6, {}, ratio=math.inf)
    run(tmp_path / "asked", 6, {"must_be_finite": []}, loss=math.inf)
    assert max(committed(tmp_path)) == max(committed(tmp_path / "asked")) == 10


def test_a_step_that_loss_scaling_skipped_is_no_divergence(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0, must_be_finite=["grad_norm"])
    metrics.log(1, {"grad_norm": math.inf}, skipped=True)
    metrics.flush()
    assert metrics.not_finite is None
    metrics.log(2, {"grad_norm": torch.tensor(math.inf)})
    metrics.flush()
    assert metrics.not_finite == (2, "grad_norm", math.inf)
    metrics.close()


@pytest.mark.gloo
def test_all_ranks_stop_with_the_code_that_means_diverged(run_py: Run, tmp_path: Path) -> None:
    done = run_py(
        "-m", "hardware=cpu", "cluster=local", "run_dir=out", "experiment.target=tests.programs.jobs.train",
        "steps=1000", "checkpoint.every_steps=25", "+job={nan_step:40,step_seconds:0.01}",
    )  # fmt: skip
    assert done.returncode == 79, done.stdout + done.stderr
    assert "loss must stay finite, but is nan at step 40" in done.stderr
    assert committed(tmp_path / "out" / "0") == [25]
    rows = (tmp_path / "out" / "0" / "metrics.jsonl").read_text().splitlines()
    assert 40 <= json.loads(rows[-1])["step"] < 1000
