"""A bar on a terminal, plain lines in a log."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

from tests.conftest import ROOT, Run, clean_environment

JOB = ("run_dir=out", "experiment.target=tests.programs.jobs.train", "steps=40", "+job={step_seconds:0.05}")


def on_a_terminal(directory: Path, *arguments: str) -> str:
    """What a person at a terminal of 120 columns sees."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    with subprocess.Popen(command, cwd=directory, env=clean_environment(), stdout=theirs, stderr=theirs, stdin=theirs):
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 4096):
                seen += chunk
        except OSError:  # the terminal's other end is closed: the program has ended (Linux answers EIO)
            pass
    os.close(ours)
    return seen.decode(errors="replace")


def test_a_terminal_shows_a_bar_with_loss_speed_and_time_left(tmp_path: Path) -> None:
    seen = on_a_terminal(tmp_path, *JOB)
    assert "40/40" in seen
    assert "loss=" in seen
    assert "samples/s" in seen
    assert "<" in seen  # tqdm writes elapsed<left
    assert "step 40/40" not in seen


def test_a_log_gets_lines(run_py: Run) -> None:
    done = run_py(*JOB)
    assert "step 40/40  loss " in done.stdout
    assert "samples/s" in done.stdout
    assert "%|" not in done.stdout + done.stderr
