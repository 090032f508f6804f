"""How a sweep becomes arrays: equal resources share one, the throttle holds over all of them, and the cost is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.config import Launch
from hpc.errors import ConfigurationError
from hpc.run.point import Point
from hpc.run.points import Sweep
from hpc.submit.cost import agree_to_cost, gpu_hours
from hpc.submit.plan import Plan, make_plans, shares

EIGHT = {"nodes": 2, "gpus_per_node": 8, "tasks_per_node": 8, "time_limit_minutes": 90}


def a_sweep(*hardware: dict[str, Any], limit: int = 256) -> Sweep:
    cluster = {"max_parallel_points": limit}
    configs = ({"hardware": dict(each), "cluster": cluster, "experiment": {"target": "a.b"}} for each in hardware)
    return Sweep(Path("/sweep"), tuple(Point(str(n), (), config) for n, config in enumerate(configs)))


def plans_of(sweep: Sweep, size: int = 1000) -> list[Plan]:
    return make_plans(sweep, size, lambda _: "slurm")


@given(sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=8), more=st.integers(0, 3000))
def test_the_throttle_is_shared_fully_and_never_exceeded(sizes: list[int], more: int) -> None:
    limit = len(sizes) + more
    found = shares(limit, sizes)
    assert all(1 <= share <= size for share, size in zip(found, sizes, strict=True))
    assert sum(found) == min(limit, sum(sizes))


def test_equal_resources_share_an_array_wherever_they_stand() -> None:
    plans = plans_of(a_sweep(EIGHT, {}, EIGHT, {}, EIGHT, limit=4), size=2)
    assert [(plan.points, plan.parallel_points) for plan in plans] == [(("0", "2"), 1), (("4",), 1), (("1", "3"), 2)]


def test_points_that_may_begin_again_less_often_have_an_array_of_their_own() -> None:
    configs = ({"runtime": {"max_lives_without_progress": most}, "experiment": {"target": "a.b"}} for most in (5, 2, 5))
    plans = plans_of(Sweep(Path("/sweep"), tuple(Point(str(n), (), config) for n, config in enumerate(configs))))
    assert [(plan.points, plan.retries.max_lives) for plan in plans] == [(("0", "2"), 5), (("1",), 2)]


def test_more_arrays_than_points_may_run_at_once_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_parallel_points must be at least 2, because the sweep is sent"):
        plans_of(a_sweep(EIGHT, {}, limit=1))


def test_points_that_stay_here_take_nothing_of_the_throttle() -> None:
    sweep = a_sweep(EIGHT, {}, limit=1)
    plans = make_plans(sweep, 1000, lambda point: "local" if point.name == "1" else "slurm")
    assert [(plan.points, plan.parallel_points) for plan in plans] == [(("0",), 1)]


def test_the_cost_is_said_and_agreed_to(capsys: pytest.CaptureFixture[str]) -> None:
    plans = plans_of(a_sweep(*[EIGHT] * 3, {}))
    assert gpu_hours(plans) == 3 * 2 * 8 * 1.5
    agree_to_cost(plans, Launch(ask_above_gpu_hours=72))
    assert capsys.readouterr().out == "At worst 72 GPU-hours: 4 jobs in 2 arrays, each until its time limit.\n"
    agree_to_cost(plans, Launch(ask_above_gpu_hours=71, yes=True))
    with pytest.raises(ConfigurationError, match=r"at least 72 for this sweep, but is 71, and nobody said yes"):
        agree_to_cost(plans, Launch(ask_above_gpu_hours=71))
    agree_to_cost(plans_of(a_sweep({})), Launch(ask_above_gpu_hours=0.1))
    assert "At worst 1 node-hour: 1 job, each until its time limit." in capsys.readouterr().out
