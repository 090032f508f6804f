"""Ranks of real processes that do not go on, and people who touch files."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from hpc.run.events import Committed, Failed, SlowRank, Stopped
from hpc.run.pulse import read_pulses
from tests.support.events import told
from tests.support.local_sweep import wait_for
from tests.task.test_life import Life, Start, start

__all__ = ["start"]
pytestmark = pytest.mark.gloo
ONCE = "launch.max_crashes=1"
"""After a crash it does not go on: code 76."""


def hang_of(life: Life) -> str:
    """What rank 0's watchdog said of rank 1."""
    (failed,) = (event for event in told(life.directory, Failed) if event.code == 70)
    (report,) = (json.loads(path.read_text()) for path in (life.directory / "failures").glob("*-0.json"))
    assert (report["cause"]["kind"], report["cause"]["rank"]) == ("hang", 1)
    assert "rank 1 on" in failed.reason
    return failed.reason


def test_files_in_the_run_directory_save_and_stop_and_a_stopped_rank_ends_the_run(start: Start) -> None:
    life = start("run", "steps=5000", "checkpoint.every_steps=1000000", step_seconds=0.05)
    life.wait_for_step(5)
    (life.directory / "save").touch()
    wait_for(lambda: told(life.directory, Committed), "it is saved")
    (life.directory / "stop").touch()
    said = life.end()
    assert life.process.returncode == 130, said
    (stopped,) = told(life.directory, Stopped)
    saved = [event.step for event in told(life.directory, Committed)]
    assert (stopped.cause, saved) == ("STOP_FILE", [saved[0], stopped.step])
    assert saved[0] < stopped.step
    assert sorted(path.name for path in life.directory.iterdir() if path.name in ("stop", "save")) == []

    life = start("run", "steps=5000", "checkpoint.every_steps=1000000", ONCE, step_seconds=0.05)
    life.wait_for_step(stopped.step + 20)
    wait_for(lambda: read_pulses(life.directory)[1].phase == "training", "both ranks train")
    os.kill(read_pulses(life.directory)[1].pid, signal.SIGSTOP)
    said = life.end()
    assert life.process.returncode == 76, said
    assert "is stopped (SIGSTOP) (training, after step" in hang_of(life)
    (stacks,) = (life.directory / "hangs").iterdir()
    of_rank_0, of_rank_1 = Path(stacks).read_text().split("rank 1 on")
    assert "in misbehave" in of_rank_1 or "in train" in of_rank_1
    assert "State: T (stopped)" in of_rank_1
    assert "in train" in of_rank_0


@pytest.mark.faults
def test_a_rank_that_is_slow_is_told_of_and_holds_nobody_up_for_good(start: Start) -> None:
    """Fault 31."""
    life = start("run", "steps=400", "+job.slow_rank=1", "+job.slow_seconds=0.1", ONCE, step_seconds=0.02)
    said = life.end()
    assert life.process.returncode == 0, said
    event, *_ = told(life.directory, SlowRank)
    assert event.rank == 1
    assert event.factor > 1.5
    assert "rank 1 on" in said
    assert "for its own part of a step" in said
    assert told(life.directory, Failed) == []


@pytest.mark.faults
def test_a_rank_whose_python_is_held_in_c_is_ended_by_another(start: Start) -> None:
    life = start("run", "steps=1000", "+job.fail_rank=1", "+job.hold_step=200", "runtime.hang_seconds=30", ONCE)
    said = life.end()
    assert life.process.returncode == 76, said
    assert "is silent (training, after step" in hang_of(life)
    (stacks,) = (life.directory / "hangs").iterdir()
    assert "in misbehave" in stacks.read_text().split("rank 1 on")[1]
