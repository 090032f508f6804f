"""A process that has found a hang ends by that, whatever its main thread meets meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment

RANK = """
import os, sys, threading, time
from pathlib import Path
from hpc.attempt.attempt import begin
from hpc.attempt.failure import leave_if_another_failed, note_end, note_failure
from hpc.errors import HungError
from hpc.run.secret import Secret
from hpc.world import resolve_world

attempt = begin(resolve_world({}), Secret(b"", "nobody"), Path(sys.argv[1]), lambda key, proposal: proposal, {})
noted = threading.Event()

def watchdog():
    note_end(attempt, HungError("rank 1 hangs."))
    noted.set()
    time.sleep(1)  # as long as others are asked for their stacks
    os._exit(HungError.exit_code)

threading.Thread(target=watchdog).start()
noted.wait()
if sys.argv[2] == "fails":
    note_failure(attempt, RuntimeError("Connection closed by peer"))
    os._exit(1)
leave_if_another_failed(attempt)
print("it stayed", flush=True)
"""


@pytest.mark.parametrize(("main_thread", "said"), [("fails", ""), ("is told to end", "it stayed\n")])
def test_the_main_thread_leaves_the_end_to_the_watchdog(main_thread: str, said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RANK, str(tmp_path), main_thread]
    done = subprocess.run(
        command, env=clean_environment(), capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (70, said), done.stderr
    (report,) = (tmp_path / "failures").glob("*.txt")
    assert "rank 1 hangs" in report.read_text()
