"""Points that are written as what differs between them come back as they were, to the type and the order of keys."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.config import Settings
from hpc.errors import LoadError
from hpc.run import frozen
from hpc.run.alike import changed, differences
from hpc.run.listing import count_points
from hpc.run.point import Point
from hpc.run.points import Sweep, load_sweep
from hpc.run.stored import open_sweep

PLAIN = st.one_of(
    *(st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, -0.0, 1.0, 2.5, float("inf")])),
    *(st.sampled_from(["", "1", "a", "hpc:path"]), st.just(b"x"), st.just(Path("/p"))),
)
KEYS = st.sampled_from(["a", "b", "c.d", "hpc:bytes", 1, True, None, 2.5])
TREES = st.recursive(
    PLAIN, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)), max_leaves=8
)
CONFIGS = st.dictionaries(st.sampled_from(["a", "b", "c.d", "e"]), TREES, max_size=4)


@settings(deadline=None)
@given(old=TREES, new=TREES)
def test_differences_lead_from_one_to_the_other(old: Any, new: Any) -> None:
    found = list(differences(old, new))
    assert repr(changed(old, frozen.loads(frozen.dumps(found)))) == repr(new)


def test_what_is_shared_is_no_difference() -> None:
    old: dict[str, Any] = {"a": {"b": [1, 2]}, "c": 1}
    assert list(differences(old, {**old, "c": 2})) == [[["c"], 2]]
    assert list(differences(old, {"a": {"b": [1, 3]}})) == [[["c"]], [["a", "b", 1], 3]]
    assert changed(old, [])["a"] is old["a"]


@settings(deadline=None, max_examples=30)
@given(configs=st.lists(CONFIGS, min_size=1, max_size=5))
def test_a_sweep_comes_back(tmp_path_factory: pytest.TempPathFactory, configs: list[dict[Any, Any]]) -> None:
    choices = [{"runtime": {"choices": {"model": str(number % 2)}}, "job": {"num": number}} for number in range(5)]
    points = [
        Point(str(number), (f"n={number}",), each, choices[number], Settings()) for number, each in enumerate(configs)
    ]
    directory = tmp_path_factory.mktemp("sweeps") / "new"
    Sweep(directory, tuple(points)).write()
    assert repr(load_sweep(directory).points) == repr(tuple(points))


def a_sweep(directory: Path, count: int, **more: Any) -> Sweep:
    common = {"model": {f"option_{number}": "x" * 20 for number in range(100)}, **more}
    points = (Point(str(n), (f"seed={n}",), {**common, "seed": n, "run_dir": f"/r/{n}"}) for n in range(count))
    return Sweep(directory, tuple(points))


def test_a_point_takes_less_than_a_kilobyte(tmp_path: Path) -> None:
    a_sweep(tmp_path / "new", 200).write()
    assert len(list((tmp_path / "new").iterdir())) < 5
    assert (tmp_path / "new/points.jsonl").stat().st_size < 3000 + 200 * 200


def test_one_point_is_read_without_the_others(tmp_path: Path) -> None:
    """Damage elsewhere is not even seen; and neither the number of points nor their overrides need a config."""
    written = a_sweep(tmp_path / "new", 50)
    written.write()
    path = tmp_path / "new/points.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *["{"] * 40, *lines[41:]]) + "\n")
    stored = open_sweep(tmp_path / "new")
    assert (len(stored), count_points(tmp_path / "new")) == (50, 50)
    assert stored.named("45") == stored.point(45) == written.points[45]
    assert stored.overrides_of(49) == ("49", ("seed=49",))
    with pytest.raises(LoadError, match=r"points\.jsonl is damaged \(line 2:"):
        list(stored.overrides())
    with pytest.raises(LoadError, match=r"must hold point 50, but has 50 others|is damaged"):
        stored.named("50")


@pytest.mark.parametrize("like", ["1", "99", "-1", '"0"', "[]", "0.5", "2"])
def test_a_line_that_is_like_none_is_damaged(tmp_path: Path, like: str) -> None:
    a_sweep(tmp_path / "new", 40).write()
    path = tmp_path / "new/points.jsonl"
    path.write_text(path.read_text().replace('"like": 0', f'"like": {like}'))
    with pytest.raises(LoadError, match="is damaged"):
        load_sweep(tmp_path / "new")


def test_sweeps_of_the_first_format_are_read(tmp_path: Path) -> None:
    sweep = a_sweep(tmp_path, 3)
    (tmp_path / "points.jsonl").write_text("".join(point.line() for point in sweep.points))
    (tmp_path / "sweep.json").write_text(json.dumps({"format": 1, "points": 3}))
    assert load_sweep(tmp_path) == sweep
    assert open_sweep(tmp_path).named("2") == sweep.points[2]


def test_points_that_have_much_in_common_share_it_in_memory(tmp_path: Path) -> None:
    a_sweep(tmp_path / "new", 1000).write()
    tracemalloc.start()
    points = load_sweep(tmp_path / "new").points
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert points[1].config["model"] is points[999].config["model"]
    assert size < 1000 * 4000


def test_a_small_sweep_can_be_read_by_any_tool(tmp_path: Path) -> None:
    written = a_sweep(tmp_path / "new", 32)
    written.write()
    lines = (tmp_path / "new/points.jsonl").read_text().splitlines()
    assert [json.loads(line)["config"] for line in lines] == [point.config for point in written.points]
