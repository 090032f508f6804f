"""Which points a command that is typed once more has in its sweep already, and what of it is sent."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc.config import Cluster, Hardware
from hpc.errors import ConfigurationError, SlurmError
from hpc.run.calls import Call as SbatchCall
from hpc.run.calls import Turn, alone, next_number, open_calls, record_answer, record_call, record_void
from hpc.run.code import code_of_point
from hpc.run.point import Point
from hpc.run.points import Sweep, load_sweep
from hpc.run.submissions import SUBMISSIONS_FILE, Submission, newest_jobs
from hpc.slurm import client
from hpc.submit.merge import merged, numbers
from hpc.submit.plan import Plan
from hpc.submit.throttle import Array, beside
from tests.conftest import FakeSlurm, Run

CPU = ("-m", "hardware=cpu", "cluster.partition=cpu", "run_dir=out")


def point(number: int, *overrides: str, **config: Any) -> Point:
    return Point(str(number), overrides, config)


def stored(directory: Path, *points: Point) -> Sweep:
    sweep = Sweep(directory, points)
    sweep.write()
    return sweep


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ([["seed=0"], ["seed=1"]], [0, 1]),
        ([["seed=1"]], [1]),
        ([["seed=2"], ["seed=1"], ["seed=0"]], [2, 1, 0]),
        ([["seed=1", "hardware=8xA100"], ["seed=1", "hardware=1xA100"]], [1, 2]),
        ([["seed=5"], ["seed=0", "launch.yes=true"]], [2, 0]),
    ],
)
def test_a_point_is_known_by_what_was_typed_for_it(tmp_path: Path, typed: list[list[str]], found: list[int]) -> None:
    stored(tmp_path / "sweep", point(0, "seed=0", "hardware=cpu"), point(1, "seed=1", "hardware=cpu"))
    assert numbers(tmp_path / "sweep", typed) == found
    assert numbers(tmp_path / "new", typed) == list(range(len(typed)))


def test_points_that_differ_in_their_size_alone_keep_their_names(tmp_path: Path) -> None:
    stored(tmp_path / "s", point(0, "hardware=a"), point(1, "hardware=b"), point(2, "hardware=b", "seed=1"))
    assert numbers(tmp_path / "s", [["hardware=b"], ["hardware=a"], ["hardware=c"]]) == [1, 0, 3]


def test_the_sweep_keeps_what_it_has_and_gets_what_is_new(tmp_path: Path) -> None:
    old = stored(tmp_path / "s", *(point(n, f"seed={n}", seed=n, hardware={"nodes": 1}) for n in range(2)))
    typed = Sweep(old.directory, tuple(point(n, f"seed={n}", seed=n, hardware={"nodes": 2}) for n in range(3)))
    found = merged(typed)
    assert [each.name for each in found.new] == ["2"]
    assert [each.config["hardware"]["nodes"] for each in found.sweep(["1", "2"]).points] == [1, 2, 2]
    found.sweep(["1", "2"]).write_or_continue()
    assert [each.config["hardware"]["nodes"] for each in load_sweep(old.directory).points] == [1, 2, 2]


def test_another_spelling_is_the_same_point(tmp_path: Path) -> None:
    old = stored(tmp_path / "s", point(0, "lr=1e-3", lr=0.001, run_dir="/a/0"), point(1, "lr=1", lr=1, run_dir="/a/1"))
    typed = [["lr=0.001"], ["lr=1"]]
    named = numbers(old.directory, typed)
    assert named == [2, 1]
    other = point(2, "lr=0.001", lr=0.001, run_dir="/a/2", hardware={"nodes": 3})
    found = merged(Sweep(old.directory, (other, point(1, "lr=1", lr=1, run_dir="/a/1"))))
    assert [each.name for each in found.typed.points] == ["0", "1"]
    assert found.typed.points[0].config == {"lr": 0.001, "run_dir": "/a/0", "hardware": {"nodes": 3}}
    assert found.new == []


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ([point(0, "seed=0", seed=0, lr=2)], "but lr of point 0 changed"),
        ([point(0, "seed=0", seed=0, lr=1), point(2, "seed=7", seed=7, lr=1)], r"but point 1 \(seed=1\) is none"),
    ],
)
def test_other_points_are_refused(tmp_path: Path, typed: list[Point], words: str) -> None:
    old = stored(tmp_path / "s", point(0, "seed=0", seed=0, lr=1), point(1, "seed=1", seed=1, lr=1))
    with pytest.raises(ConfigurationError, match=words):
        merged(Sweep(old.directory, tuple(typed)))


def test_a_run_without_m_is_no_sweep(tmp_path: Path) -> None:
    stored(tmp_path / "s", replace(point(0), name="."))
    with pytest.raises(ConfigurationError, match="holds a run that was started without it"):
        numbers(tmp_path / "s", [["seed=0"]])


def test_what_is_being_added_is_not_there_yet(tmp_path: Path) -> None:
    """A task that starts between the two files of a sweep that grows finds the sweep as it was."""
    old = stored(tmp_path / "s", point(0, seed=0))
    before = (old.directory / "sweep.json").read_text()
    Sweep(old.directory, (*old.points, point(1, seed=1))).write_or_continue()
    assert len(load_sweep(old.directory).points) == 2
    (old.directory / "sweep.json").write_text(before)
    assert load_sweep(old.directory).points == old.points


def test_calls_without_an_answer_are_known(tmp_path: Path) -> None:
    calls = [SbatchCall(n, f"script-{n}", Submission("", (str(n),), 1.0)) for n in range(3)]
    record_call(tmp_path, calls[0])
    record_answer(tmp_path, calls[0], Submission("100", ("0",), 1.0))
    record_call(tmp_path, calls[1])
    record_void(tmp_path, calls[1])
    with (tmp_path / SUBMISSIONS_FILE).open("a") as file:
        file.write('{"event": "called", "numb')  # killed in the middle of a line
    record_call(tmp_path, calls[2])
    assert open_calls(tmp_path) == [calls[2]]
    assert next_number(tmp_path) == 3
    assert {point: job.id for point, job in newest_jobs(tmp_path).items()} == {"0": "100"}


def test_one_command_submits_at_a_time_and_none_on_old_news(tmp_path: Path) -> None:
    old, new = Turn(tmp_path), Turn(tmp_path)
    with old.taken():
        with pytest.raises(ConfigurationError, match="one command at a time"), alone(tmp_path):
            pass
        record_call(tmp_path, SbatchCall(0, "s", Submission("", ("0",), 1.0)))
    with old.taken():
        pass
    with pytest.raises(ConfigurationError, match="one command at a time"), new.taken():
        pass


def test_new_code_of_a_point_is_no_other_points(tmp_path: Path) -> None:
    lines = [{"tree": "a", "digest": ""}, {"tree": "b", "digest": "", "points": ["0"]}]
    (tmp_path / "code.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = [code_of_point(tmp_path, name) for name in ("0", "1")]
    assert [code.tree for code in found if code is not None] == ["b", "a"]


def plan(count: int) -> Plan:
    names = tuple(map(str, range(count)))
    return Plan(Path("/s"), "mine", names, Hardware(), Cluster(), count)


@pytest.mark.parametrize(
    ("limit", "arrays", "new", "shares", "waits"),
    [
        (4, [], 3, [3], ()),
        (4, [Array("7", ("7_0",), 0)], 9, [3], ()),  # one runs and nothing waits: the rest is free
        (4, [Array("7", ("7_0", "7_1", "7_2", "7_3"), 9)], 9, [2], ("7_2", "7_3")),
        (4, [Array("7", ("7_0",), 9), Array("8", (), 1)], 1, [1], ()),
        (1, [Array("7", ("7_0",), 1)], 2, [2], ("7",)),
    ],
)
def test_no_more_run_at_once_than_may(
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    arrays: list[Array],
    new: int,
    shares: list[int],
    waits: tuple[str, ...],
) -> None:
    told: dict[str, int] = {}

    def ask(command: list[str]) -> str:
        if command[1] == "update":
            told[command[2].partition("=")[2]] = int(command[3].partition("=")[2])
        return "JobId=7 ArrayTaskThrottle=100 "

    monkeypatch.setattr(client, "ask", ask)
    found = beside([plan(new)], arrays, limit)
    assert [each.parallel_points for each in found] == shares
    assert found[0].waits_for == waits
    if limit > 1:
        running = sum(min(told.get(each.job, each.size), each.size) for each in arrays)
        assert running + sum(shares) <= limit


def test_without_an_answer_the_new_ones_wait_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(command: list[str]) -> str:
        raise SlurmError(command[0], "no")

    monkeypatch.setattr(client, "ask", ask)
    (found,) = beside([plan(2)], [Array("7", ("7_0",), 5)], 4)
    assert (found.parallel_points, found.waits_for) == (2, ("7",))


def test_what_is_missing_is_sent_and_what_changed_is_refused(
    run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    """The jobs are in no queue any more: 0 has finished, 1 is lost, 2 is new."""
    typed = (*CPU, "+x=${oc.env:X}")
    first = run_py(*typed, "seed=0,1", environ={**fake_slurm.environ, "X": "1"})
    assert first.returncode == 0, first.stderr
    (tmp_path / "out" / "0").mkdir()
    (tmp_path / "out" / "0" / "finished.json").write_text('{"value": 1}')
    changed = run_py(*typed, "seed=0,1,2", environ={**fake_slurm.environ, "X": "2"})
    assert changed.returncode == 78
    assert "but x of point 0 changed" in changed.stderr
    again = run_py(*typed, "seed=0,1,2", environ={**fake_slurm.environ, "X": "1"})
    assert again.returncode == 0, again.stderr
    assert "Plan: submit 1, retry 1, finished 1.\n" in again.stdout
    assert [re.findall(r"hpc_points=.*", script) for script in fake_slurm.scripts] == [
        ["hpc_points=(0 1)"],
        ["hpc_points=(1 2)"],
    ]
    forced = run_py(*typed, "seed=0", "launch.force=true", environ={**fake_slurm.environ, "X": "1"})
    assert forced.returncode == 0, forced.stderr
    assert "Plan: retry 1.\n" in forced.stdout
    assert (tmp_path / "out" / "earlier" / "0-1" / "finished.json").exists()
    assert not (tmp_path / "out" / "0").exists()
    assert len(load_sweep(tmp_path / "out").points) == 3
