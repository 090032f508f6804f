"""kill -9 of a rank on this machine costs its point some steps, and nobody an errand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from hpc.run.events import Committed, Ended, Resumed
from tests.conftest import ROOT, clean_environment
from tests.support.equality import differences
from tests.support.events import told
from tests.support.local_sweep import wait_for

SWEEP = (
    "-m", "cluster=local", "hardware=cpu", "hardware.nodes=1", "hardware.tasks_per_node=2", "launch.max_parallel=2",
    "experiment.target=tests.programs.jobs.train", "runtime.deterministic=true", "checkpoint.every_steps=10",
    "steps=40", "launch.snapshot=false", "+twin=0,1", "+job={step_seconds:0.1,trace:'${run_dir}/trace'}",
)  # fmt: skip


def test_a_point_that_loses_a_rank_ends_as_its_twin_bit_for_bit(tmp_path: Path) -> None:
    killed, twin = (tmp_path / "run" / name for name in ("0", "1"))
    queue = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *SWEEP, f"run_dir={tmp_path / 'run'}"], cwd=tmp_path, text=True,
        env=clean_environment(PYTHONPATH=str(ROOT)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_for(lambda: told(killed, Committed) or queue.poll() is not None, "a checkpoint is there")
        os.kill(json.loads((killed / "trace" / "rank_1.json").read_text())["pid"], signal.SIGKILL)
        output = queue.communicate(timeout=300)[0]
    finally:
        queue.kill()
        queue.wait()
    assert queue.returncode == 0, output
    assert "Point 0 lost a rank to a signal, and goes on in another attempt." in output
    assert differences(killed, twin) == []
    assert [(end.code, end.verdict, end.follows) for end in told(killed, Ended)] == [(137, "rank_died", "again")]
    first, second = (event.step for event in told(killed, Resumed))
    assert first == 0 < second
