"""A run directory is its owner's alone: other writers are refused by name; /tmp and private groups are not."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.errors import ConfigurationError
from hpc.run.ownership import check_ownership, check_private, make_private
from tests.conftest import ROOT, clean_environment

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
is_root = os.geteuid() == 0 and shutil.which("setpriv") is not None
needs_root = pytest.mark.skipif(not is_root, reason="a second user can be had by root only, with setpriv")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory below a sticky one, which every user can reach; pytest's own is closed to others."""
    with tempfile.TemporaryDirectory(prefix="hpc-test-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def refused(directory: Path, writers: str = "owner") -> str:
    with pytest.raises(ConfigurationError) as caught:
        check_ownership(directory, writers)
    return str(caught.value)


def test_ones_own_directory_is_taken_and_one_that_is_not_there_yet(place: Path) -> None:
    check_ownership(place)
    check_ownership(place / "new" / "below")
    (place / "link").symlink_to(place)
    check_ownership(place / "link" / "new")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
def test_a_directory_that_everybody_may_write_is_refused(place: Path, mode: int) -> None:
    place.chmod(mode)
    assert f"{place} is writable by everybody, who could run code as you: `chmod o-w" in refused(place)
    assert refused(place, "group")
    check_ownership(place, "anyone")


def test_a_directory_below_one_that_everybody_may_write_is_refused_unless_it_is_sticky(place: Path) -> None:
    (place / "run").mkdir()
    (place / "link").symlink_to("run")
    place.chmod(0o777)
    for name in ("run", "run/new", "new", "link"):
        assert f"`chmod +t {place}`" in refused(place / name)
    place.chmod(0o1777)
    check_ownership(place / "run")
    check_ownership(place / "new")


@needs_root
def test_what_a_group_may_write_needs_a_word_unless_its_owner_is_alone_in_it(place: Path) -> None:
    place.chmod(0o775)
    check_ownership(place)  # root's own group
    os.chown(place, 0, 65534)
    assert "writable by group nogroup" in refused(place) or "writable by group nobody" in refused(place)
    assert "cluster.run_dir_writers=group" in refused(place / "new")
    check_ownership(place, "group")
    check_ownership(place / "new", "group")


@needs_root
def test_somebody_elses_directory_is_refused(place: Path) -> None:
    (place / "run").mkdir()
    os.chown(place / "run", 65534, 65534)
    assert f"{place / 'run'} belongs to nobody" in refused(place / "run")
    check_ownership(place / "run" / "new")  # who owns the directory above is who was chosen to be trusted
    check_ownership(place / "run", "group")
    place.chmod(0o1777)
    assert "belongs to nobody" in refused(place / "run" / "new")  # but not who was first in /tmp


def test_a_private_directory_is_made_closed_or_closed(place: Path) -> None:
    before = os.umask(0)
    try:
        assert make_private(place / "made") == [place / "made"]
    finally:
        os.umask(before)
    (place / "open").mkdir()
    assert make_private(place / "open") == []
    for name in ("made", "open"):
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o700
        check_private(place / name)


def test_a_private_directory_that_others_may_read_or_that_is_a_link_is_refused(place: Path) -> None:
    (place / "open").mkdir(mode=0o755)
    (place / "link").symlink_to("open")
    for name in ("open", "link"):
        with pytest.raises(ConfigurationError):
            check_private(place / name)


@needs_root
@pytest.mark.parametrize("opened", ["run", ""], ids=["run", "above"])
def test_a_task_does_not_begin_where_another_user_may_write(place: Path, opened: str) -> None:
    """Whichever directory was left open to others since the job was sent."""
    (place / "run").mkdir(mode=0o755)
    (place / opened).chmod(0o777)
    environ = clean_environment(SUBMITIT_EXECUTOR="slurm", SLURM_JOB_ID="7", SLURM_PROCID="0", SLURM_LOCALID="0")
    done = subprocess.run(
        [sys.executable, "-m", "hpc.submit.payload", str(place / "run"), "0", "owner"],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 78, done.stderr
    assert "hpc: " in done.stderr
    assert "Traceback" not in done.stderr
