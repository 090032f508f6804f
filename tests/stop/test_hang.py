"""Verdicts about ranks that do not go on, from what is told and from what the kernel says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from hpc.run.pulse import Pulse
from hpc.stop.hang import Limits, Look

ME = Pulse("a", 0, "n0", 1, 1, 40, "training", 1000.0, 900.0, 1000.0, 1000.0, longest_seconds=0.2)
PEER = replace(ME, rank=1)


def seen(
    seconds: float,
    *ranks: Pulse,
    states: Mapping[int, str] | None = None,
    living: Sequence[int] = (0,),
    moving: Sequence[int] = (),
    hang_seconds: float | None = None,
) -> str:
    """What rank 0 says that looks every ten seconds, for so long.

    Args:
        seconds: Since the last step.
        ranks: What was told then.
        states: Of those on this node.
        living: These tell something new each time.
        moving: These have moved each time.
        hang_seconds: The setting.
    """
    look, told = Look(0, Limits(hang_seconds)), list(ranks)
    for now in range(5, int(seconds) + 1, 5):
        told = [replace(each, time=each.time + 5 * (each.rank in living)) for each in told]
        told = [replace(each, moved=each.moved + 5 * (each.rank in moving)) for each in told]
        look.at(now, {each.rank: each for each in told}, states or {})
        verdict = "exempt" if look.is_exempt(states or {}) else look.verdict(now, now, states or {})
        if verdict:
            return verdict
    return ""


def test_a_stopped_rank_is_named_within_half_a_minute() -> None:
    told = seen(30, ME, replace(PEER, host="n7"), states={1: "T"})
    assert told == "No rank has gone on for 20 s: rank 1 on n7 is stopped (SIGSTOP) (training, after step 40)"


def test_a_rank_that_was_stopped_for_a_moment_is_not() -> None:
    look = Look(0, Limits())
    for now in range(5, 60, 5):
        states = {1: "T" if now % 10 else "R"}
        look.at(now, {0: ME, 1: PEER}, states)
        assert look.verdict(now, now, states) == ""


@pytest.mark.parametrize("state", ["R", "S", "D"])
def test_a_rank_of_this_node_that_is_silent_may_compute(state: str) -> None:
    """As long as unpickling takes, for one: Python is held then."""
    assert seen(290, ME, PEER, states={1: state}) == ""
    assert "rank 1 on n0 is silent" in seen(320, ME, PEER, states={1: state})


def test_a_silent_rank_of_another_node_is_waited_for_longer_than_a_stopped_one() -> None:
    assert seen(60, ME, PEER) == ""
    assert "rank 1 on n0 is silent" in seen(80, ME, PEER)
    assert seen(290, ME, replace(PEER, phase="saving")) == ""


def test_ranks_that_stand_still_are_waited_for_ten_times_the_longest_step() -> None:
    both = {"living": (0, 1), "states": {1: "S"}}
    assert seen(290, ME, PEER, **both) == ""  # type: ignore[arg-type]
    assert "rank 1 on n0 is not going on (training, after step 39)" in seen(310, ME, replace(PEER, step=39), **both)  # type: ignore[arg-type]
    slow = [replace(each, longest_seconds=60.0) for each in (ME, PEER)]
    assert seen(590, *slow, **both) == ""  # type: ignore[arg-type]
    assert "for 600 s" in seen(610, *slow, **both)  # type: ignore[arg-type]


def test_a_rank_that_moves_may_evaluate_unseen_for_half_an_hour() -> None:
    assert seen(1790, ME, PEER, living=(0, 1), moving=(1,)) == ""
    assert "for 1800 s" in seen(1810, ME, PEER, living=(0, 1), moving=(1,))
    assert seen(9000, ME, moving=(0,)) == "", "alone it lets nobody wait"


@pytest.mark.parametrize("phase", ["building", "restoring", "data", "first step", "saving", "evaluating", "ending"])
def test_one_rank_in_a_long_phase_lets_the_others_wait(phase: str) -> None:
    assert seen(3590, ME, replace(PEER, phase=phase), living=(0, 1), hang_seconds=20) == ""
    assert "for 3600 s" in seen(3610, ME, replace(PEER, phase=phase), living=(0, 1), hang_seconds=20)
    assert seen(9000, ME, replace(PEER, phase=phase), living=(0, 1), moving=(1,), hang_seconds=20) == ""


def test_a_phase_with_a_name_of_its_own_and_a_debugger_are_waited_for_without_end() -> None:
    assert seen(30, ME, replace(PEER, phase="tokenising")) == "exempt"
    assert seen(30, ME, replace(PEER, phase="debugger")) == "exempt"
    assert seen(30, ME, PEER, states={1: "t"}) == "exempt"


def test_a_number_is_taken_at_its_word() -> None:
    assert seen(15, ME, PEER, living=(0, 1), moving=(0, 1), hang_seconds=20) == ""
    assert "for 20 s" in seen(20, ME, PEER, living=(0, 1), moving=(0, 1), hang_seconds=20)
    assert "not going on" in seen(20, ME, hang_seconds=20)


def test_many_ranks_are_counted() -> None:
    assert seen(20, *(replace(ME, rank=rank) for rank in range(9)), hang_seconds=5).endswith("; and 5 more")
