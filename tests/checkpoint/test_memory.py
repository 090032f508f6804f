"""A resume streams: it never holds the state twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, clean_environment


def test_a_resume_takes_little_more_memory_than_the_state_itself(tmp_path: Path) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells the peak of a process's memory since a moment")
    command = [sys.executable, "-m", "tests.programs.memory", str(tmp_path / "checkpoints")]
    outputs = []
    for _ in ("save", "load"):
        done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert 1.0 <= float(outputs[1]) <= 1.2
