"""A stop that is asked for in any phase, by one rank, once or a hundred times: one save, one more life, no loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.run.events import Failed, Started, Stopped
from hpc.run.result import read_result
from tests.conftest import Run
from tests.programs.signalled import STEP, STEPS
from tests.support.equality import differences
from tests.support.events import told

PHASES = ("none", "building", "data", "backward", "collective", "evaluating")
pytestmark = [pytest.mark.gloo, pytest.mark.faults]


def test_a_stop_is_served_in_every_phase(run_py: Run, tmp_path: Path) -> None:
    done = run_py(
        "-m", "cluster=local", "hardware=cpu", "hardware.tasks_per_node=2", "run_dir=out", "launch.snapshot=false",
        "launch.max_parallel=2", "runtime.deterministic=true", "experiment.target=tests.programs.signalled.train",
        f"+job.phase={','.join(PHASES)}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    points = {phase: tmp_path / "out" / str(number) for number, phase in enumerate(PHASES)}
    stops = {phase: [event.step for event in told(point, Stopped)] for phase, point in points.items()}
    assert {phase: len(steps) for phase, steps in stops.items()} == {phase: int(phase != "none") for phase in PHASES}
    assert stops["building"] == [0]
    assert all(STEP <= stops[phase][0] < STEPS for phase in ("backward", "collective", "evaluating")), stops
    for phase, point in points.items():
        assert told(point, Failed) == []
        assert len(told(point, Started)) == 1 + len(stops[phase])
        assert differences(point, points["none"]) == [], phase
        assert read_result(point) == read_result(points["none"])
