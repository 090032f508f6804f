"""A disk that is full while a sweep is submitted: nothing of it stays, in the directory or in the queue."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.run.submissions import newest_jobs
from tests.conftest import FakeSlurm, Run

QUEUE = """#!/bin/sh
number=$(ls "$FAKE_SLURM/scripts" | wc -l)
cp "$1" "$FAKE_SLURM/scripts/$number.sh"
echo "$number|$1" >>"$FAKE_SLURM/squeue.out"
echo "Submitted batch job $number"
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that is made smaller by what fills it."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)], check=True, timeout=10)
    yield directory
    subprocess.run(["umount", str(directory)], check=True, timeout=10)


def test_of_a_submission_that_finds_no_space_nothing_stays(run_py: Run, fake_slurm: FakeSlurm, disk: Path) -> None:
    """From less space than the first file takes to enough for all of them."""
    (fake_slurm.directory / "bin" / "sbatch").write_text(QUEUE)
    command = ("-m", "hardware=cpu", "cluster.partition=cpu", "launch.snapshot=false", f"run_dir={disk / 'out'}")
    ends = []
    for pages in (1, 10, 12, 40):
        (disk / "ballast").write_bytes(b"x" * (256 - 4 * pages) * 1024)
        queued = len(fake_slurm.scripts)
        done = run_py(*command, "seed=0,1", environ=fake_slurm.environ)
        ends.append(done.returncode)
        if done.returncode == 0:
            assert {job.id for job in newest_jobs(disk / "out").values()} == {f"{queued}_0", f"{queued}_1"}
            shutil.rmtree(disk / "out")
            continue
        assert "must be a writable directory" in done.stderr, (pages, done.stderr)
        left = sorted(str(path.relative_to(disk)) for path in disk.rglob("*"))
        assert left == ["ballast"], (pages, done.stderr)
        sent = range(queued, len(fake_slurm.scripts))
        assert all(f"scancel {number}" in fake_slurm.calls for number in sent), pages
    assert (ends[0], ends[-1]) == (78, 0)
