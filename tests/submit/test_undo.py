"""A refused submission leaves what was there, byte for byte; of two at once one wins, and the other touches nothing."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import FakeSlurm, Run, clean_environment

SUBMIT = ("run", "-m", "hardware=cpu", "cluster.partition=cpu", "run_dir=out")
SECRET = "+cluster.environment.WANDB_API_KEY=very-secret"
GATE = """#!/bin/sh
echo "sbatch $*" >>"$FAKE_SLURM/calls"
cat "$FAKE_SLURM/gate" >/dev/null
. "$FAKE_SLURM/verdict"
"""
PATIENCE_SECONDS = 120.0


def listing(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and directory below, with its mode and what is in it."""
    paths = [(str(path.relative_to(directory)), path) for path in sorted(directory.rglob("*"))]
    return {
        name: (stat.S_IMODE(path.lstat().st_mode), path.read_bytes() if path.is_file() else b"") for name, path in paths
    }


@contextmanager
def waiting_at_sbatch(fake_slurm: FakeSlurm, place: Path, verdict: str) -> Iterator[subprocess.Popen[str]]:
    """A submission whose sbatch waits until this is left, and then answers with some lines of shell."""
    os.mkfifo(fake_slurm.directory / "gate")
    (fake_slurm.directory / "verdict").write_text(verdict)
    (fake_slurm.directory / "bin" / "sbatch").write_text(GATE)
    process = subprocess.Popen(
        [sys.executable, "-m", "hpc", *SUBMIT, SECRET], cwd=place, env=clean_environment(**fake_slurm.environ),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(call.startswith("sbatch") for call in fake_slurm.calls):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    try:
        yield process
    finally:
        (fake_slurm.directory / "gate").write_text("")
        process.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("accepted", [True, False])
def test_who_comes_second_is_refused_and_leaves_the_first_alone(
    run_hpc: Run, fake_slurm: FakeSlurm, tmp_path: Path, accepted: bool
) -> None:
    place = tmp_path
    verdict = "echo Submitted batch job 100" if accepted else "echo sbatch: error: no >&2; exit 1"
    with waiting_at_sbatch(fake_slurm, place, verdict) as first:
        before = listing(place / "out")
        second = run_hpc(*SUBMIT, SECRET, environ=fake_slurm.environ)
        assert second.returncode == 78
        assert "hpc: run_dir must be submitted by one command at a time" in second.stderr
        assert listing(place / "out") == before
    out, errors = first.communicate()
    if accepted:
        assert first.returncode == 0, errors
        assert "Submitted job 100" in out
        assert {*before} - {*listing(place / "out")} <= {name for name in before if ".pkl" in name or ".sh" in name}
        assert {"points.jsonl", "sweep.json", "secrets.json", "submitit/100_submission.sh"} < {*listing(place / "out")}
    else:
        assert first.returncode == 78
        assert not (place / "out").exists()


def test_of_several_at_once_one_wins(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    """Who comes after it has won finds its jobs in the queue."""
    fake_slurm.answer("squeue", "".join(f"100_{task}|PENDING|N/A|1:00||Priority\n" for task in (0, 1)))
    command = [sys.executable, "-m", "hpc", *SUBMIT, "seed=0,1"]
    environ = clean_environment(**fake_slurm.environ)
    processes = [
        subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    ends = [(*process.communicate(timeout=PATIENCE_SECONDS), process.returncode) for process in processes]
    assert sum("Submitted job 100, 2 points" in out for out, _, _ in ends) == 1, ends
    others = [(out, errors, code) for out, errors, code in ends if "Submitted" not in out]
    assert all((code, "Plan: running 2." in out) in ((78, False), (0, True)) for out, _, code in others), ends
    (script,) = fake_slurm.scripts
    kept = listing(tmp_path / "out")
    assert script.encode() in [content for _, content in kept.values()]
    assert {"points.jsonl", "sweep.json", "submitit"} < {*kept}


def test_a_refused_submission_leaves_everything_as_it_was(run_hpc: Run, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    """Also what another job writes into the same directory meanwhile."""
    place = tmp_path / "out"
    (place / "submitit").mkdir(parents=True)
    (place / "submitit").chmod(0o750)
    for name in ("notes", "submitit/99_0_log.out", "submitit/environment_7.sh"):
        (place / name).write_text("mine")
    before = listing(place)
    log = place / "submitit" / "99_1_log.out"
    verdict = f"echo late >{log}; echo sbatch: error: no >&2; exit 1"
    (fake_slurm.directory / "bin" / "sbatch").write_text(f"#!/bin/sh\n{verdict}\n")
    done = run_hpc(*SUBMIT, SECRET, environ=fake_slurm.environ)
    assert done.returncode == 78, done.stderr
    assert log.read_text() == "late\n"
    log.unlink()
    assert listing(place) == before


def test_a_submission_closes_what_its_tasks_read(run_hpc: Run, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "out" / "submitit").mkdir(parents=True)
    done = run_hpc(*SUBMIT, SECRET, environ=fake_slurm.environ)
    assert done.returncode == 0, done.stderr
    modes = {name: mode for name, (mode, _) in listing(tmp_path / "out").items()}
    assert (modes["submitit"], modes["secrets.json"]) == (0o700, 0o600)
    assert [mode for name, mode in modes.items() if name.startswith("submitit/environment_")] == [0o600]


def test_a_submitit_that_is_a_link_is_refused(run_hpc: Run, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "submitit").symlink_to(tmp_path / "elsewhere")
    before = listing(tmp_path / "out")
    done = run_hpc(*SUBMIT, environ=fake_slurm.environ)
    assert done.returncode == 78, done.stderr
    assert "submitit" in done.stderr
    assert listing(tmp_path / "out") == before
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert fake_slurm.scripts == []
