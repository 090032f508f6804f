from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hpc.errors import ConfigurationError
from hpc.run.point import Point
from hpc.run.points import Sweep
from hpc.run.secret import shared_secret
from hpc.world import resolve_world
from tests.conftest import clean_environment

ALONE = resolve_world({})
TWO = replace(ALONE, world_size=2)


def sweep(directory: Path, *names: str) -> Path:
    """A frozen sweep's directory."""
    config = {"experiment": {"target": "a.b"}, "run_dir": str(directory)}
    Sweep(directory, tuple(Point(name, (), config) for name in names)).write()
    return directory


def of_user(home: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(home)}


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o777])
def test_a_submission_has_a_secret_that_nobody_else_can_read(tmp_path: Path, umask: int) -> None:
    before = os.umask(0)
    (tmp_path / "sweep").mkdir(mode=0o700)
    os.umask(umask)
    try:
        directory = sweep(tmp_path / "sweep", "0", "1")
    finally:
        os.umask(before)
    assert (directory / "secret").stat().st_mode & 0o777 == 0o600
    first = shared_secret(TWO, of_user(tmp_path), directory)
    assert first == shared_secret(TWO, {}, directory)
    assert first != shared_secret(TWO, {}, sweep(tmp_path / "other", "0"))
    assert not (tmp_path / "hpc").exists()


def test_a_run_that_nobody_submitted_keeps_no_secret_in_its_directory(tmp_path: Path) -> None:
    assert not (sweep(tmp_path / "run", ".") / "secret").exists()


def test_what_is_said_explicitly_goes_first(tmp_path: Path) -> None:
    told = {**of_user(tmp_path), "HPC_SECRET": "sixteen letters!"}
    assert shared_secret(TWO, told, sweep(tmp_path / "sweep", "0")).value == b"sixteen letters!"
    with pytest.raises(ConfigurationError, match="HPC_SECRET must have at least 16 characters, but has 4: take random"):
        shared_secret(TWO, {"HPC_SECRET": "open"})


def test_without_a_submission_it_is_the_users_made_once(tmp_path: Path) -> None:
    first = shared_secret(TWO, of_user(tmp_path), tmp_path)
    assert first == shared_secret(TWO, of_user(tmp_path))
    assert first.source == str(tmp_path / "hpc" / "secret")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "hpc", tmp_path / "hpc" / "secret")] == [0o700, 0o600]
    assert first.value.decode() not in repr(first)


def test_a_world_of_one_leaves_no_secret_behind(tmp_path: Path) -> None:
    assert shared_secret(ALONE, of_user(tmp_path)) != shared_secret(ALONE, of_user(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_many_who_need_it_first_agree(tmp_path: Path) -> None:
    program = (
        "import sys, dataclasses\nfrom hpc.run.secret import shared_secret\nfrom hpc.world import resolve_world\n"
        "world = dataclasses.replace(resolve_world({}), world_size=2)\nsys.stdin.read()\n"
        f"print(shared_secret(world, {of_user(tmp_path)!r}).value.decode())\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program], env=clean_environment(), text=True, stdin=-1, stdout=-1)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    assert len({process.communicate(timeout=60)[0] for process in processes}) == 1


@pytest.mark.parametrize("kind", ["readable", "writable", "foreign", "directory", "fifo", "link", "damaged", "nowhere"])
def test_a_secret_that_others_may_know_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hpc" / "secret"
    if kind == "nowhere":
        path.parent.write_text("a file")
    else:
        path.parent.mkdir()
    if kind in ("readable", "writable", "foreign", "damaged"):
        path.write_text("0" * 64 + "\n" if kind != "damaged" else "")
        path.chmod({"readable": 0o640, "writable": 0o622}.get(kind, 0o600))
    if kind == "foreign":
        monkeypatch.setattr(os, "getuid", lambda: 4711)
    if kind == "directory":
        path.mkdir(mode=0o700)
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr("hpc.run.secret.WAIT_SECONDS", 0.0)
    with pytest.raises(ConfigurationError, match=f"^{path} must .*, but .*HPC_SECRET with the same random text"):
        shared_secret(TWO, of_user(tmp_path))
    assert not (tmp_path / "elsewhere").exists()
