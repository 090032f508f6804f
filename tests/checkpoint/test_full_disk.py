"""A disk that is really full: the older checkpoint stays, nothing half written does, and the exit code says so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.checkpoint.store import CheckpointStore
from tests.conftest import Run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that one checkpoint of the test job fits on, and two do not."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    directory = tmp_path / "out" / "checkpoints"
    directory.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(directory)], check=True, timeout=10)
    yield directory
    subprocess.run(["umount", str(directory)], check=True, timeout=10)


def test_a_full_disk_ends_the_run_with_74_and_the_older_checkpoint_intact(run_py: Run, small_disk: Path) -> None:
    job = ("experiment.target=tests.jobs.train", "checkpoint.every_steps=25", "+job={}")
    done = run_py("run_dir=out", "steps=100", *job)
    assert done.returncode == 74, done.stderr
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    reports: list[str] = []
    found = CheckpointStore(small_disk).latest(reports.append)
    assert found is not None
    assert found.step == 25
    assert reports == []
    assert sorted(path.name for path in small_disk.iterdir()) == ["fence", "step_00000025"]
