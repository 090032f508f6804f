"""A shell between srun and the rank: named where it would die of the signal that asks for a save."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, clean_environment

PROGRAM = f"{sys.executable} -c 'from hpc.stop.shell import shell_in_between; print(shell_in_between())'"


@pytest.fixture
def slurmstepd(tmp_path: Path) -> str:
    """A shell that goes by the name of what starts the tasks of a step."""
    return str(shutil.copy(Path("/bin/bash"), tmp_path / "slurmstepd"))


@pytest.mark.parametrize(
    ("command", "found"),
    [
        (f'bash -c "{PROGRAM}; true"', "bash"),
        (f'sh -c "{PROGRAM}; true"', "sh"),
        (f'bash -c "trap : TERM USR2; {PROGRAM}; true"', ""),
        (f"bash -c \"trap '' TERM USR2; {PROGRAM}; true\"", ""),
        (f"bash -c \"trap '' TERM; {PROGRAM}; true\"", "bash"),
        (f'bash -c "exec {PROGRAM}"', ""),
        (PROGRAM, ""),
    ],
)
def test_a_shell_that_dies_of_the_signal_is_named(slurmstepd: str, command: str, found: str) -> None:
    done = subprocess.run(
        [slurmstepd, "-c", f"{command}; true"],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == found
