"""A sweep's directory holds its points, and nobody else's."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hpc.config.changes import changed_keys
from hpc.errors import ConfigurationError, LoadError
from hpc.files import remove_made
from hpc.run.listing import is_sweep
from hpc.run.point import Point
from hpc.run.points import Sweep, load_sweep


def sweep(directory: Path, **config: Any) -> Sweep:
    return Sweep(directory, (Point("0", ("a=1",), config), Point("1", (), {"b": [1, {"c": None}]})))


def test_points_come_back_as_they_were(tmp_path: Path) -> None:
    written = sweep(tmp_path / "new", x={"y": 1.5})
    written.write()
    assert is_sweep(written.directory)
    assert load_sweep(written.directory) == written
    assert written.point("1").config == {"b": [1, {"c": None}]}
    assert written.point_directory("1") == tmp_path / "new" / "1"


def test_a_directory_takes_one_sweep(tmp_path: Path) -> None:
    sweep(tmp_path).write()
    with pytest.raises(ConfigurationError, match="holds a sweep already"):
        sweep(tmp_path).write()


def test_a_signature_is_of_what_is_computed(tmp_path: Path) -> None:
    one = Point("0", (), {"seed": 1, "model": {"a": 1, "b": 2}, "hardware": {"nodes": 1}, "run_dir": "/x"})
    other = Point("1", ("seed=1",), {"run_dir": "/y", "model": {"b": 2, "a": 1}, "seed": 1, "cluster": {}})
    assert one.signature == other.signature
    signatures = {Point("0", (), {"seed": seed, "model": {"a": 1, "b": 2}}).signature for seed in (1, 1.0, "1", None)}
    assert len(signatures) == 4
    assert one.signature in signatures
    sweep(tmp_path / "new", seed=1).write()
    assert load_sweep(tmp_path / "new").points[0].signature == sweep(tmp_path, seed=1).points[0].signature


def test_the_same_points_go_on_elsewhere(tmp_path: Path) -> None:
    sweep(tmp_path, seed=0, hardware={"nodes": 1}).write_or_continue()
    sweep(tmp_path, seed=0, hardware={"nodes": 2}).write_or_continue()
    assert load_sweep(tmp_path).point("0").config["hardware"] == {"nodes": 2}


def test_other_points_are_refused_by_the_names_of_what_differs(tmp_path: Path) -> None:
    sweep(tmp_path, seed=0, optimizer={"lr": 1, "betas": [1]}).write_or_continue()
    with pytest.raises(ConfigurationError, match="but optimizer\\.lr, seed changed"):
        sweep(tmp_path, seed=1, optimizer={"lr": 2, "betas": [1]}).write_or_continue()
    assert load_sweep(tmp_path).point("0").config["seed"] == 0


def test_how_ranks_share_the_work_may_change_and_what_they_compute_may_not(tmp_path: Path) -> None:
    sweep(tmp_path, strategy={"name": "ddp", "precision": "bf16"}, checkpoint={"keep": 2}).write_or_continue()
    sweep(tmp_path, strategy={"name": "fsdp", "precision": "bf16"}, checkpoint={"keep": 3}).write_or_continue()
    with pytest.raises(ConfigurationError, match="but strategy\\.precision changed"):
        sweep(tmp_path, strategy={"name": "fsdp", "precision": "fp32"}, checkpoint={"keep": 3}).write_or_continue()


def test_another_number_of_points_is_refused(tmp_path: Path) -> None:
    sweep(tmp_path).write_or_continue()
    with pytest.raises(ConfigurationError, match="but the number of points changed"):
        Sweep(tmp_path, (Point("0", (), {}),)).write_or_continue()


def test_a_directory_without_points_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="must hold a sweep, but sweep\\.json cannot be read"):
        load_sweep(tmp_path)


def test_changed_keys_are_dotted_and_sorted() -> None:
    assert changed_keys({"a": {"b": 1, "c": 2}, "d": []}, {"a": {"b": 1, "c": 3}, "e": {}}) == ["a.c", "d", "e"]


def test_a_point_has_its_settings_once() -> None:
    point = Point(".", (), {"seed": 7})
    assert point.settings.seed == 7
    assert point.settings is point.settings


def test_what_hydra_knew_comes_back(tmp_path: Path) -> None:
    point = Point("0", (), {"seed": 0}, {"job": {"num": 0}})
    Sweep(tmp_path / "new", (point,)).write()
    assert load_sweep(tmp_path / "new").point("0").hydra == {"job": {"num": 0}}


def test_of_several_commands_exactly_one_gets_the_directory(tmp_path: Path) -> None:
    directory, start = tmp_path / "a" / "b", threading.Barrier(8)

    def one(number: int) -> str:
        start.wait()
        try:
            Sweep(directory, (Point(str(number), (), {"n": number}),)).write()
        except ConfigurationError as error:
            return str(error)
        return "won"

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(one, range(8)))
    assert ends.count("won") == 1
    assert sum("holds a sweep already" in end for end in ends) == 7
    assert [point.name for point in load_sweep(directory).points] == [str(ends.index("won"))]


def test_a_directory_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "runs" / "new" / "sweep.json").mkdir(parents=True)
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "runs" / "places").mkdir()
    (tmp_path / "runs" / "places" / "points.jsonl").write_text("longitude,latitude\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigurationError, match="run_dir must be a writable directory"):
        sweep(tmp_path / "runs" / "link").write()
    with pytest.raises(ConfigurationError, match="holds a sweep already"):
        sweep(tmp_path / "runs" / "new").write()
    with pytest.raises(ConfigurationError, match=r"points\.jsonl was written by another program"):
        sweep(tmp_path / "runs" / "places").write()
    with pytest.raises(ConfigurationError, match="is a set"):
        sweep(tmp_path / "other" / "new", x={1}).write()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_was_made_is_taken_back_and_nothing_else(tmp_path: Path) -> None:
    made = sweep(tmp_path / "a" / "b").write()
    (tmp_path / "a" / "mine").write_text("")
    remove_made(made)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "mine"]


@pytest.mark.parametrize("line", ["", "{", "[]", "3", '{"name": ".", "overrides": [], "config": [', "\x00"])
def test_damaged_points_are_named(tmp_path: Path, line: str) -> None:
    sweep(tmp_path).write()
    (tmp_path / "points.jsonl").write_text(f"{line}\n")
    with pytest.raises(LoadError, match=r"points\.jsonl|sweep\.json"):
        load_sweep(tmp_path)


def test_a_point_that_is_not_there_is_named(tmp_path: Path) -> None:
    sweep(tmp_path).write()
    with pytest.raises(LoadError, match=r"must hold point 7"):
        load_sweep(tmp_path).point("7")
