"""The time of a point is cut without gaps, and what hardware was held adds up."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc.report.spans import HELD, LOST, PREEMPTED, PRODUCTIVE, QUEUED, SAVING, STARTUP, Span, spans
from hpc.run.events import Committed, Ended, Event, Failed, Finished, Resumed, Started, Stopped
from hpc.run.lives import Life, lives


def life(attempt: str, *events: Event) -> list[Event]:
    return [type(event)(**{**vars(event), "attempt": attempt}) for event in events]


def begun(time: float) -> Started:
    return Started("slurm", 2, ("node1",), time=time)


def told(found: list[Span]) -> list[tuple[str, int, float, float]]:
    return [(span.kind, span.life, span.begin, span.end) for span in found]


def test_a_life_is_cut_where_it_waits_starts_trains_saves_and_loses() -> None:
    past = lives(
        [
            *life(
                "a",
                begun(100),
                Resumed(0, time=130),
                Committed(5, 20.0, 5.0, time=200),
                Stopped(5, "SIGTERM", time=210),
            ),
            *life("b", begun(300), Resumed(5, time=320), Committed(9, 10.0, 10.0, time=400), Failed(1, 1, time=450)),
            *life("c", begun(500), Resumed(9, time=510), Finished(time=600)),
        ]
    )
    assert told(spans(past, sent=40, heard=0, is_alive=False)) == [
        *((QUEUED, 1, 40, 100), (STARTUP, 1, 100, 130), (PRODUCTIVE, 1, 130, 180), (SAVING, 1, 180, 185)),
        *((PRODUCTIVE, 1, 185, 210), (PREEMPTED, 2, 210, 300), (STARTUP, 2, 300, 320), (PRODUCTIVE, 2, 320, 390)),
        *((SAVING, 2, 390, 400), (LOST, 2, 400, 450), (QUEUED, 3, 450, 500), (STARTUP, 3, 500, 510)),
        (PRODUCTIVE, 3, 510, 600),
    ]


@pytest.mark.parametrize(("is_alive", "kind"), [(True, PRODUCTIVE), (False, LOST)])
def test_what_a_life_does_until_it_is_last_heard_of_counts(is_alive: bool, kind: str) -> None:
    past = lives(life("a", begun(100), Resumed(0, time=110)))
    assert told(spans(past, None, 500, is_alive)) == [(STARTUP, 1, 100, 110), (kind, 1, 110, 500)]


@pytest.mark.parametrize(
    ("verdict", "kind"), [("preempted", PREEMPTED), ("preempted_early", PREEMPTED), ("stopped", QUEUED)]
)
def test_whoever_watches_over_a_life_says_why_the_next_one_waits(verdict: str, kind: str) -> None:
    ended = Ended(75, verdict, "again", "life", 0, time=200)
    past = lives([*life("a", begun(100), Stopped(0, "SIGTERM", time=190), ended), *life("b", begun(300))])
    assert (kind, 2, 200, 300) in told(spans(past, None, 0, False))


def test_a_life_without_a_step_has_only_started_up() -> None:
    past = lives(life("a", begun(100), Failed(0, 78, time=104)))
    assert told(spans(past, 90, 0, False)) == [(QUEUED, 1, 90, 100), (STARTUP, 1, 100, 104)]


moments = st.floats(0, 1e4, allow_nan=False)


@st.composite
def pasts(draw: st.DrawFn) -> list[Life]:
    """Any events at any times, as clocks that disagree may leave them."""
    kinds = st.one_of(
        st.builds(begun, moments),
        st.builds(lambda time: Resumed(0, time=time), moments),
        st.builds(lambda time, took, blocked: Committed(1, took, blocked, time=time), moments, moments, moments),
        st.builds(lambda time: Stopped(1, "TIME_LIMIT", time=time), moments),
        st.builds(lambda time: Failed(0, 1, time=time), moments),
    )
    names = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True))
    return lives([event for name in names for event in life(name, *draw(st.lists(kinds, min_size=1, max_size=8)))])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pasts(), moments, st.booleans())
def test_held_time_is_the_time_of_the_lives(past: list[Life], heard: float, is_alive: bool) -> None:
    found = spans(past, None, heard, is_alive)
    assert all(span.seconds > 0 for span in found)
    for number, each in enumerate([each for each in past if each.has_started], 1):
        held = [span for span in found if span.kind in HELD and span.life == number]
        begin, end = each.events[0].time, held[-1].end if held else each.events[0].time
        assert end >= each.events[-1].time or not held
        assert sum(span.seconds for span in held) == pytest.approx(end - begin)
        assert [span.begin for span in held[1:]] == [span.end for span in held[:-1]]
