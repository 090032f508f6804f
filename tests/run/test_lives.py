"""What a run's past was like follows from its events, however late and by whomever they are told."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from hpc.run.events import (
    Closed,
    Committed,
    Diverged,
    EndedEarly,
    Event,
    Failed,
    Finished,
    Resumed,
    Started,
    Stopped,
    Verified,
)
from hpc.run.lives import (
    crashes,
    hours_between_failures,
    last_committed_step,
    lives,
    lives_without_progress,
    read_back_times,
)

HOUR = 3600.0
DAY = 24 * HOUR


def life(began: float, hours: float, last: Event) -> list[Event]:
    """A start and one more event."""
    attempt = f"job-{began}"
    return [
        Started("slurm", 1, (), attempt=attempt, time=began),
        replace(last, attempt=attempt, time=began + hours * HOUR),
    ]


def nothing(began: float) -> list[Event]:
    """A life that has only started, as far as anybody knows."""
    return life(began, 0, Resumed(0))


@pytest.mark.parametrize(
    ("events", "hours"),
    [
        ([], 24.0),
        (life(0, 6, Committed(1)), 30.0),
        ([*life(0, 6, Committed(1)), *life(90_000, 0, Resumed(1))], 15.0),
        ([*life(0, 6, Stopped(1, "SIGTERM")), *life(90_000, 0, Resumed(1))], 30.0),
        ([*life(0, 6, EndedEarly(1, "enough")), *life(90_000, 0, Resumed(1))], 15.0),
        ([*life(0, 6, Closed()), *life(90_000, 0, Resumed(1))], 30.0),
        ([*life(0, 6, Committed(1)), *life(90_000, 6, Committed(2)), *life(200_000, 0, Resumed(2))], 12.0),
        ([*life(0, 1, Committed(1)), *nothing(20 * DAY)], 12.5),
        ([*life(0, 1, Committed(1)), Verified(1, attempt="verify-1", time=15 * DAY), *nothing(20 * DAY)], 12.5),
        ([*life(0, 1, Committed(1)), Verified(1, time=15 * DAY), *nothing(20 * DAY)], 12.5),
        ([*life(0, 1, Committed(1)), Verified(1, attempt="job-0", time=15 * DAY), *nothing(20 * DAY)], 12.5),
        ([*life(0, 1, Diverged(1, "nan")), *nothing(20 * DAY)], 12.5),
        (life(0, 1, Failed(0, 1)), 12.5),
    ],
)
def test_failures_are_lives_that_did_not_end_by_themselves(events: list[Event], hours: float) -> None:
    assert hours_between_failures(lives(events)) == hours


def test_the_order_in_which_files_are_read_does_not_matter() -> None:
    events = [*life(0, 1, Committed(1)), *life(DAY, 2, Stopped(3, "SIGUSR2")), *life(2 * DAY, 3, Committed(7))]
    shuffled = random.Random(0).sample(events, len(events))
    assert lives(shuffled) == lives(events)
    assert [one.hours for one in lives(shuffled)] == [1, 2, 3]


def test_two_attempts_at_once_are_two_lives() -> None:
    events: Sequence[Event] = [*life(0, 5, Stopped(3, "SIGTERM")), *life(HOUR, 1, Committed(9))]
    assert [(one.attempt, one.left_well) for one in lives(events)] == [("job-0", True), (f"job-{HOUR}", False)]


def test_a_program_that_starts_again_in_the_same_step_has_two_lives() -> None:
    again = [replace(event, attempt="job-0", time=event.time + HOUR) for event in life(0, 1, Finished(1.0))]
    past = lives([*life(0, 0.5, Failed(0, 1)), *again])
    assert [(one.attempt, one.left_well) for one in past] == [("job-0", False), ("job-0", True)]


def test_a_failure_by_a_clock_that_is_behind_belongs_to_its_attempt() -> None:
    (one,) = lives([*life(100, 1, Resumed(0)), Failed(3, 1, attempt="job-100", time=90)])
    assert one.has_started
    assert one.first_failure == Failed(3, 1, attempt="job-100", time=90)


def test_the_first_rank_to_fail_is_the_cause() -> None:
    told = [Failed(rank, 1, f"rank {rank}", attempt="job-0", time=time) for rank, time in ((1, 9.0), (2, 7.0))]
    (one,) = lives([*life(0, 0, Resumed(0)), *told])
    assert one.first_failure is not None
    assert one.first_failure.reason == "rank 2"


@pytest.mark.parametrize(
    ("last", "count"),
    [
        ([], 0),
        ([Resumed(0)], 1),
        ([Resumed(0), Resumed(0)], 2),
        ([Resumed(0), Committed(1), Resumed(0)], 1),
        ([Resumed(0), Committed(1)], 0),
        ([Committed(1), Stopped(1, "SIGTERM"), Failed(0, 1)], 2),
        ([Resumed(0), Closed()], 0),
        ([Resumed(0), Finished(1.0), Resumed(0)], 1),
    ],
)
def test_a_commit_forgives_earlier_lives(last: list[Event], count: int) -> None:
    events = [event for number, end in enumerate(last) for event in life(number * DAY, 1, end)]
    assert len(lives_without_progress(lives(events))) == count


def test_what_happened_before_the_ranks_came_up_is_no_life_to_count() -> None:
    """A script of an older version told no start; an attempt that is refused because of its past has none."""
    events: Sequence[Event] = [
        Committed(50, attempt="old-0", time=0),
        *life(10, 0, Stopped(60, "SIGTERM")),
        Failed(0, 76, attempt="refused", time=DAY),
    ]
    past = lives(events)
    assert last_committed_step(past) == 50
    assert crashes(past) == 0
    assert len(lives_without_progress(past)) == 1


def test_a_checkpoint_is_read_back_by_a_resume_or_by_hand() -> None:
    events = [*life(0, 1, Resumed(50)), Verified(50, time=5.0), Verified(60, time=7.0)]
    assert read_back_times(events) == {50: HOUR, 60: 7.0}
