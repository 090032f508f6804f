"""How early a run leaves follows from what it was measured to need, unless a person has said it."""

from __future__ import annotations

import pytest

from hpc.config import Cluster, Hardware
from hpc.run.events import Committed, Event, Started
from hpc.run.grace import first_grace_seconds, grace_seconds
from hpc.stop.requests import StopCause, StopRequests


def save(step: int, time: float, seconds: float, attempt: str = "one") -> Committed:
    return Committed(step, seconds, attempt=attempt, time=time)


SLOW = [save(10, 1000, 90), save(20, 1400, 100), save(21, 9000, 1, "two")]
"""100 s for a save, 40 s for a step; what lies between two lives is no step."""


@pytest.mark.parametrize(
    ("asked", "minutes", "events", "first", "grace"),
    [
        (None, 60, [], 120, 120),
        (None, 2, [], 60, 60),
        (None, 60, [save(10, 100, 1), Started("none", 1, ())], 120, 120),
        (None, 60, SLOW, 120, 290),
        (None, 60, SLOW[::-1], 120, 290),
        (None, 8, SLOW, 120, 240),
        (30, 60, SLOW, 30, 30),
    ],
)
def test_two_minutes_and_more_where_that_is_needed(
    asked: int | None, minutes: int, events: list[Event], first: int, grace: float
) -> None:
    cluster, hardware = Cluster(grace_seconds=asked), Hardware(time_limit_minutes=minutes)
    assert first_grace_seconds(cluster, hardware) == first
    assert grace_seconds(cluster, hardware, events) == grace


@pytest.mark.parametrize(("learns", "cause"), [(True, StopCause.TIME_LIMIT), (False, StopCause.NONE)])
def test_a_slow_save_counts_in_the_life_that_made_it(learns: bool, cause: StopCause) -> None:
    requests = StopRequests()
    requests.watch_clock(2**40, 120, learns)
    assert requests.current() is StopCause.NONE
    requests.needs(float(2**40))
    assert requests.current() is cause
