"""The rank for which the others wait: how it is timed, when it is told, and when it is told again."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from hpc.run.events import SlowRank
from hpc.run.pulse import Pulse
from hpc.stop.pace import LEAST, Pace
from hpc.stop.slow import SlowRanks, sentence, slowest

RANK = Pulse("a", 0, "n0", 1, 1, 40, "training", 1000.0, 900.0, 1000.0, 1000.0, own_seconds=0.1)


def ranks(*seconds: float) -> list[Pulse]:
    return [replace(RANK, rank=rank, host=f"n{rank}", own_seconds=own) for rank, own in enumerate(seconds)]


@pytest.mark.parametrize(
    ("seconds", "rank"),
    [
        ((0.1, 0.2), 1),
        ((0.1, 0.1, 0.1, 0.24), 3),
        ((0.3, 0.3, 0.1), None),  # most need as long
        ((0.1, 0.14), None),
        ((0.001, 0.004), None),  # a difference that is noise
        ((0.1, 0.0), None),  # one has not told yet
        ((0.1,), None),
        ((), None),
    ],
)
def test_the_slowest_is_measured_against_the_median_of_the_others(seconds: Sequence[float], rank: int | None) -> None:
    found = slowest(ranks(*seconds), 1.5)
    assert (found and found.rank) == rank


def test_a_rank_that_evaluates_or_saves_is_not_compared() -> None:
    fast, slow = ranks(0.1, 0.5)
    assert slowest([fast, replace(slow, phase="evaluating")], 1.5) is None


def test_it_is_told_after_three_looks_and_again_when_the_factor_has_changed_much() -> None:
    told: list[SlowRank] = []
    now: list[Pulse] = []
    looks = SlowRanks(1.5, 2, lambda: now, told.append)
    story = [(0.1, 0.3)] * 5 + [(0.1, 0.32)] * 3 + [(0.1, 0.6)] * 2 + [(0.1, 0.1)] + [(0.1, 0.3)] * 2 + [(0.4, 0.1)] * 3
    for second, seconds in enumerate(story):
        now[:] = ranks(*seconds)
        looks.look(10.0 * second)
        looks.look(10.0 * second + 1)  # too early
    assert [(event.rank, round(event.factor, 1)) for event in told] == [(1, 3.0), (1, 6.0), (0, 4.0)]
    assert "rank 1 on n1 needs 3.0 times as long as the others for its own part of a step (300 ms" in sentence(told[0])


def test_many_ranks_are_looked_at_less_often() -> None:
    assert SlowRanks(1.5, 2, list, print).every_seconds == 10
    assert SlowRanks(1.5, 1000, list, print).every_seconds == 100


def test_a_part_is_timed_from_one_exchange_to_the_next_and_only_where_that_was_asked_for() -> None:
    pace = Pace()
    for step in range(3 * LEAST):
        pace.is_on = pace.is_on or step % 2 == 0
        for _ in range(2):  # two backward passes: what lies between them is no part
            pace.arrive(step)
            pace.leave(step)
            pace.arrive(step)
            time.sleep(0.001)
            pace.leave(step)
        assert bool(pace.own_seconds) == (step >= 2 * LEAST - 1), step
        time.sleep(0.02)
    assert pace.own_seconds >= 0.02


def test_another_thread_may_ask_meanwhile() -> None:
    pace, over = Pace(), threading.Event()

    def ask() -> None:
        while not over.is_set():
            assert pace.own_seconds >= 0

    thread = threading.Thread(target=ask)
    thread.start()
    for step in range(20_000):
        pace.is_on = True
        pace.arrive(step)
        pace.leave(step)
    over.set()
    thread.join()
