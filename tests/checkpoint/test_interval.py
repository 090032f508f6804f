"""How often to save follows from what a save costs and how often runs fail."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from hpc.checkpoint.background import Flight
from hpc.checkpoint.interval import MAX_SECONDS, MIN_SECONDS, choose, daly_seconds
from hpc.checkpoint.schedule import Schedule
from hpc.config import CheckpointOptions
from hpc.run.events import IntervalChosen
from hpc.run.journal import Journal
from tests.support.events import told
from tests.support.saves import Alone


def lost_share(interval: float, save: float, mean: float) -> float:
    """Of a run's time, with memoryless failures: what `daly_seconds` approximates the minimum of."""
    return math.expm1((interval + save) / mean) / interval


@pytest.mark.parametrize(("save", "mean"), [(0.05, 3600.0), (5.0, 36_000.0), (60.0, 86_400.0), (300.0, 3600.0)])
def test_no_other_interval_loses_less(save: float, mean: float) -> None:
    best = daly_seconds(save, mean)
    assert best == pytest.approx(min(range(1, 20_000), key=lambda each: lost_share(each, save, mean)), rel=0.01, abs=1)


def test_a_save_that_costs_more_than_failures_do_is_made_once_between_them() -> None:
    assert daly_seconds(100.0, 10.0) == 10.0


@pytest.mark.parametrize(
    ("blocked", "durable", "hours", "seconds", "reason"),
    [
        (
            5.0,
            5.0,
            10.0,
            pytest.approx(596.67, abs=0.01),
            "a save blocks training for 5.0 s; about one failure every 10.0 h",
        ),
        (0.001, 2.0, 24.0, MIN_SECONDS, "a save blocks training for 1 ms; about one failure a day is expected"),
        (0.001, 200.0, 1.0, 400.0, "twice as long as a save takes to be written"),
        (100.0, 100.0, 10_000.0, MAX_SECONDS, "for 100.0 s; about one failure every 10000.0 hours"),
    ],
)
def test_the_interval_is_the_optimum_within_limits(
    blocked: float, durable: float, hours: float, seconds: Any, reason: str
) -> None:
    choice = choose(blocked, durable, hours, "")
    assert choice.seconds == seconds
    assert reason in choice.reason


def schedule(tmp_path: Path, reports: list[str], **options: Any) -> Schedule:
    return Schedule(CheckpointOptions(**options), Alone(), Journal(tmp_path, "1"), reports.append)


def test_steps_are_counted_without_a_clock(tmp_path: Path) -> None:
    every = schedule(tmp_path, [], every_steps=25)
    assert [step for step in range(1, 101) if every.is_due(step)] == [25, 50, 75, 100]


def test_minutes_are_looked_at_seldom(tmp_path: Path) -> None:
    never = schedule(tmp_path, [], every_minutes=1e6)
    never.begin(0)
    assert not any(never.is_due(step) for step in range(1, 1000))
    assert never.next_look > 1000


def test_time_that_has_passed_makes_a_save_due(tmp_path: Path) -> None:
    always = schedule(tmp_path, [], every_minutes=1e-9)
    always.begin(0)
    assert [always.is_due(step) for step in (1, 2)] == [True, True]


def test_the_choice_is_said_once_and_journalled_when_it_changes(tmp_path: Path) -> None:
    reports: list[str] = []
    auto = schedule(tmp_path, reports, mean_hours_between_failures=10.0)
    for durable in (1.0, 1.0, 500.0):
        auto.measured(Flight(1, blocked_seconds=0.001, durable_seconds=durable))
    assert len(reports) == 1
    assert reports[0] == (
        "Saving every 60 s (a save blocks training for 1 ms; "
        "about one failure every 10.0 hours is expected by checkpoint.mean_hours_between_failures)."
    )
    assert [event.seconds for event in told(tmp_path, IntervalChosen)] == [60.0, 1000.0]
