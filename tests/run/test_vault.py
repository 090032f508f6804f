"""Secrets of a sweep are the owner's: everybody else reads *** where they stand."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc.errors import ConfigurationError, LoadError
from hpc.run.point import Point
from hpc.run.points import Sweep, load_sweep
from hpc.run.vault import Vault
from hpc.task.entry import check_secrets
from tests.conftest import ROOT, clean_environment

is_root = os.geteuid() == 0 and shutil.which("setpriv") is not None
CONFIG: dict[str, Any] = {"api": {"token": "abc-secret"}, "cluster": {"environment": {"A": "1"}}}
HOLDING: dict[str, Any] = {"bytes": [b"abc-secret"], "path": Path("/x/abc-secret")}


@pytest.fixture
def place() -> Iterator[Path]:
    """Where every user can look; pytest's own directory is closed to others."""
    with tempfile.TemporaryDirectory(prefix="hpc-test-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def sweep(directory: Path, **config: Any) -> Sweep:
    hydra = {
        "overrides": {"task": ["api.token=abc-secret", "x=1"]},
        "job": {"override_dirname": "api.token=abc-secret,x=1"},
    }
    points = (Point(str(n), ("api.token=abc-secret", f"x={n}"), {**CONFIG, **config, "x": n}, hydra) for n in range(3))
    return Sweep(directory, tuple(points))


def test_the_owner_gets_everything_back(place: Path) -> None:
    written = sweep(place / "run", **HOLDING)
    written.write()
    assert load_sweep(place / "run") == written


def test_a_secret_is_in_the_closed_file_alone_and_once(place: Path) -> None:
    before = os.umask(0)
    try:
        sweep(place / "run", **HOLDING).write()
    finally:
        os.umask(before)
    encoded = base64.b64encode(b"abc-secret")
    texts = {path: path.read_bytes() for path in (place / "run").iterdir()}
    holding = [path for path, text in texts.items() if b"abc-secret" in text or encoded in text]
    assert [path.name for path in holding] == ["secrets.json"]
    assert holding[0].stat().st_mode & 0o777 == 0o600
    values = json.loads(holding[0].read_text()).values()
    assert sorted(each for each in values if isinstance(each, str)) == sorted(
        ["abc-secret", "1", "api.token=abc-secret", "api.token=abc-secret,x=1"]
    )
    assert len(values) == 6


def test_a_sweep_without_secrets_has_no_such_file(place: Path) -> None:
    Sweep(place / "run", (Point("0", ("x=1",), {"x": 1}),)).write()
    assert not (place / "run" / "secrets.json").exists()


READ = """
import pathlib, sys
from hpc.run.points import load_sweep
point = load_sweep(pathlib.Path(sys.argv[1])).point("1")
print(point.config["api"]["token"], point.config["cluster"]["environment"], point.config["x"], *point.overrides)
"""


@pytest.mark.skipif(not is_root, reason="a second user can be had by root only, with setpriv")
def test_a_colleague_reads_the_rest(place: Path) -> None:
    sweep(place / "run").write()
    user = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    command = [*user, sys.executable, "-c", READ, str(place / "run")]
    environ = clean_environment(PYTHONDONTWRITEBYTECODE="1", HOME="/")
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "*** {'A': '***'} 1 *** x=1\n", done.stderr


def test_a_task_does_not_train_with_a_mask_for_a_password(place: Path) -> None:
    sweep(place / "run").write()
    check_secrets(load_sweep(place / "run").point("0"))
    (place / "run" / "secrets.json").unlink()
    with pytest.raises(LoadError, match=r"secrets\.json must be readable to train, but is not, and api\.token"):
        check_secrets(load_sweep(place / "run").point("0"))
    (place / "run" / "secrets.json").write_text("{")
    with pytest.raises(LoadError, match=r"secrets\.json is damaged"):
        load_sweep(place / "run")


def test_a_secret_may_be_another_one_in_the_next_life(place: Path) -> None:
    sweep(place / "run").write_or_continue()
    new = sweep(place / "run", api={"token": "new-secret"})
    new.write_or_continue()
    assert load_sweep(place / "run") == new
    with pytest.raises(ConfigurationError, match=r"but api\.user changed"):
        sweep(place / "run", api={"token": "abc-secret", "user": "me"}).write_or_continue()


def test_other_ranks_put_their_own_secrets_in_the_place_of_names() -> None:
    (point, *_) = sweep(Path("run")).points
    sent = point.hidden(Vault()).line()
    assert "abc-secret" not in sent
    assert Point.of_line(sent).filled_in(point) == point
    with pytest.raises(ConfigurationError, match="must be started with the same config"):
        Point.of_line(sent).filled_in(Point("0", (), {}))
