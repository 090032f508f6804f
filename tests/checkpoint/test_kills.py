"""What loads after a killed save is the checkpoint before it or the new one, whole."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpc import failpoints
from hpc.checkpoint.store import CheckpointStore
from tests.conftest import ROOT, Run, clean_environment
from tests.support.equality import differences
from tests.support.saves import newest

SEEDS = 100
BEFORE = ("begun", "in_file", "file_flushed", "written", "gathered", "manifest_flushed", "fence_checked")


def test_a_save_killed_anywhere_leaves_the_previous_or_the_new_checkpoint(tmp_path: Path) -> None:
    """At every failpoint, on rank 0 and on the other one, and at random moments; each trial checks every byte."""
    command = [sys.executable, "-m", "tests.programs.kills", str(tmp_path / "checkpoints"), str(SEEDS)]
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = dict(line.split(": ") for line in done.stdout.splitlines())
    assert len([name for name in lines if name.startswith("seed")]) == SEEDS
    for name in failpoints.NAMES:
        expected = "previous" if name in BEFORE else "new"
        assert lines[f"{name} on rank 0"] == f"{expected}, then new"
    assert lines["written on rank 1"] == "previous, then new"
    assert lines["undisturbed"] == "new"


def test_the_environment_names_the_failpoint(run_py: Run, tmp_path: Path) -> None:
    job = (
        "run_dir=out",
        "experiment.target=tests.programs.jobs.train",
        "checkpoint.every_steps=5",
        "steps=20",
        "+job={}",
    )
    killed = run_py(*job, environ={"HPC_FAILPOINT": "fence_checked:0:2"})
    assert killed.returncode == -signal.SIGKILL
    store = CheckpointStore(tmp_path / "out" / "checkpoints")
    assert newest(store, []) == 5
    assert len([*store.directory.glob("*.tmp-*")]) == 1
    again = run_py(*job)
    assert again.returncode == 0, again.stderr
    assert "Resumed at step 5" in again.stdout
    assert newest(store, []) == 20
    assert [*store.directory.glob("*.tmp-*")] == []


@pytest.mark.gloo
def test_sharded_training_that_is_killed_in_a_save_ends_as_if_it_never_had_been(run_py: Run, tmp_path: Path) -> None:
    job = (
        "-m", "hardware=cpu", "cluster=local", "strategy=fsdp", "runtime.deterministic=true", "steps=20", "+job={}",
        "experiment.target=tests.programs.jobs.train_exactly", "checkpoint.every_steps=5", "launch.max_crashes=1",
    )  # fmt: skip
    assert run_py(*job, "run_dir=whole").returncode == 0
    assert run_py(*job, "run_dir=cut", environ={"HPC_FAILPOINT": "file_flushed:1:3"}).returncode != 0
    assert newest(CheckpointStore(tmp_path / "cut" / "0" / "checkpoints"), []) == 5
    again = run_py(*job, "run_dir=cut")
    assert again.returncode == 0, again.stdout + again.stderr
    assert differences(tmp_path / "whole" / "0", tmp_path / "cut" / "0") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [("", None), ("renamed", ("renamed", 0, 1)), ("told:1", ("told", 1, 1)), ("in_file:2:7", ("in_file", 2, 7))],
)
def test_a_failpoint_is_a_name_a_rank_and_a_hit(text: str, found: tuple[str, int, int] | None) -> None:
    assert failpoints.parsed(text) == (found and failpoints.Failpoint(*found))
