"""What the record of a queue tells those who look on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hpc.launch.record import claim
from hpc.run.processes import this_process
from hpc.run.queue import (
    CANCELLED,
    FAILED,
    FINISHED,
    LOST,
    RUNNING,
    STOPPED,
    WAITING,
    QueueFiles,
    ask_to_cancel,
    read_queue,
)

OPENED = {"event": "opened", "time": 1.0, "host": os.uname().nodename, "points": ["0", "1", "2"]}
GONE = {**OPENED, "pid": 1, "started": 0.0}
"""Process 1 was started at another time."""
ELSEWHERE = {**GONE, "host": "elsewhere"}


def write(directory: Path, *lines: dict[str, Any] | str) -> Path:
    path = QueueFiles(directory).record
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return directory


def started(point: str, attempt: int = 1) -> dict[str, Any]:
    told = {"event": "started", "time": 2.0, "point": point, "attempt": attempt, "job": f"job-{attempt}"}
    return {**told, "pid": 7, "started": 1.5, "gpus": ["GPU-a"]}


def ended(point: str, state: str, code: int | None) -> dict[str, Any]:
    return {"event": "ended", "time": 3.0, "point": point, "attempt": 1, "state": state, "code": code}


def states(directory: Path) -> list[str]:
    queue = read_queue(directory)
    assert queue is not None
    return [point.state for point in queue.points.values()]


def test_a_sweep_without_a_queue_has_no_record(tmp_path: Path) -> None:
    assert read_queue(tmp_path) is None
    assert read_queue(write(tmp_path, "{torn")) is None


def test_the_record_is_what_its_queue_told(tmp_path: Path) -> None:
    record = claim(tmp_path)
    record.opened(["0", "1", "2"])
    record.started("0", 1, "job", os.getpid(), ["GPU-a"])
    queue = read_queue(tmp_path)
    assert queue is not None
    assert queue.is_running
    assert [point.state for point in queue.points.values()] == [RUNNING, WAITING, WAITING]
    point = queue.points["0"]
    assert (point.attempt, point.job, point.gpus, point.process) == (1, "job", ("GPU-a",), this_process(os.getpid()))
    record.ended("0", 1, 75, WAITING)
    record.started("1", 1, "other", os.getpid(), [])
    record.ended("1", 1, 0, FINISHED)
    assert record.cancelled() == []
    ask_to_cancel(tmp_path, ["2", "0"])
    assert (record.cancelled(), record.cancelled()) == (["2", "0"], [])
    record.ended("2", 0, None, CANCELLED)
    assert states(tmp_path) == [WAITING, FINISHED, CANCELLED]
    record.closed(75)
    assert states(tmp_path) == [STOPPED, FINISHED, CANCELLED]
    queue = read_queue(tmp_path)
    assert queue is not None
    assert (queue.is_running, queue.code, queue.points["0"].code, queue.points["0"].gpus) == (False, 75, 75, ())
    os.close(record.descriptor)


def test_points_of_a_killed_queue_are_lost_or_stopped_until_another_takes_them_on(tmp_path: Path) -> None:
    lines = [GONE, started("0"), started("1"), ended("1", FAILED, 1)]
    assert states(write(tmp_path, *lines)) == [LOST, FAILED, STOPPED]
    assert states(write(tmp_path, *lines, {**ELSEWHERE, "points": ["2"]})) == [LOST, FAILED, WAITING]
    assert states(write(tmp_path, *lines, {**ELSEWHERE, "points": ["0", "1"]})) == [WAITING, WAITING, STOPPED]


@pytest.mark.parametrize(
    "line", ["[]\n", "{}\n", '{"event": "started"}\n', "\0\n", '{"event": "ended", "point": "9"}\n']
)
def test_a_line_that_means_nothing_is_passed_over(tmp_path: Path, line: str) -> None:
    assert states(write(tmp_path, ELSEWHERE, line, started("0"))) == [RUNNING, WAITING, WAITING]


def test_a_torn_line_does_not_swallow_the_next_one(tmp_path: Path) -> None:
    write(tmp_path, GONE, '{"event": "sta')
    record = claim(tmp_path)
    record.opened(["0"])
    os.close(record.descriptor)
    assert states(tmp_path) == [WAITING, STOPPED, STOPPED]
