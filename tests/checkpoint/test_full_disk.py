"""Disks that are full, read-only or gone: the older checkpoint stays, nothing half written does, and it is said."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc.checkpoint.files import explained
from hpc.checkpoint.store import CheckpointStore
from hpc.errors import SaveError
from tests.conftest import Run
from tests.support.saves import Life, newest

Mount = Callable[[str], Path]


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a file system of its own on `out/checkpoints`, with the given options."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    mounts: list[Path] = []

    def mount(options: str) -> Path:
        directory = tmp_path / "out" / "checkpoints"
        directory.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], check=True, timeout=10)
        mounts.append(directory)
        return directory

    yield mount
    for directory in mounts:
        subprocess.run(["umount", str(directory)], check=True, timeout=10)


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """A small ext4 in a file."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("mounting an ext4 needs root and mkfs.ext4")
    image = tmp_path / "image"
    image.write_bytes(b"")
    os.truncate(image, 2 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", str(image)], check=True, timeout=30)
    mount = subprocess.run(["mount", "-o", "loop", str(image), str(_made(tmp_path / "disk"))], check=False, timeout=10)
    if mount.returncode != 0:
        pytest.skip("this machine has no loop devices")
    yield tmp_path / "disk"
    subprocess.run(["umount", str(tmp_path / "disk")], check=True, timeout=10)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def fails(life: Life, words: str) -> None:
    """A save fails with these words, the older checkpoint is whole and alone, and nobody else is harmed."""
    with pytest.raises(SaveError, match=words) as raised:
        life.save(2)
    assert str(life.store.directory) in str(raised.value)
    assert newest(life.store, []) == 1
    assert sorted(path.name for path in life.store.directory.iterdir()) == ["fence", "step_00000001"]


def test_a_full_tmpfs(tmpfs: Mount) -> None:
    life = Life(tmpfs("size=140k"))
    life.save(1)
    fails(life, "its file system is full, so free space there")


def test_a_full_ext4(ext4: Path) -> None:
    life = Life(ext4 / "checkpoints")
    life.save(1)
    free = os.statvfs(ext4).f_bavail * os.statvfs(ext4).f_frsize
    (ext4 / "ballast").write_bytes(bytes(free - 32768))
    fails(life, "its file system is full, so free space there")
    (ext4 / "ballast").unlink()
    life.save(3)
    assert newest(life.store, []) == 3


def test_no_inodes(tmpfs: Mount) -> None:
    life = Life(tmpfs("nr_inodes=9"))
    life.save(1)
    fails(life, "its file system has no inodes left, so delete files there")


def test_a_read_only_file_system(tmpfs: Mount) -> None:
    life = Life(directory := tmpfs("size=10m"))
    life.save(1)
    subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True, timeout=10)
    fails(life, "its file system is mounted read-only")


def test_a_directory_that_has_vanished_is_not_made_again(tmp_path: Path) -> None:
    life = Life(tmp_path / "checkpoints")
    life.save(1)
    shutil.rmtree(life.store.directory)
    with pytest.raises(SaveError, match="checkpoints could not be written: it has vanished"):
        life.save(2)
    assert not life.store.directory.exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(122, "Disk quota exceeded"), "the quota there is used up"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0\nframe"), "unexpected pos"),
    ],
)
def test_what_cannot_be_mounted_here_is_explained_too(tmp_path: Path, error: Exception, words: str) -> None:
    with pytest.raises(SaveError, match=f"{tmp_path} could not be written: .*{words}"), explained(tmp_path):
        raise error


def test_a_full_disk_ends_the_run_with_74_and_the_older_checkpoint_intact(run_py: Run, tmpfs: Mount) -> None:
    directory = tmpfs("size=160k")
    job = ("experiment.target=tests.programs.jobs.train", "checkpoint.every_steps=25", "+job={}")
    done = run_py("run_dir=out", "steps=100", *job)
    assert done.returncode == 74, done.stderr
    assert "could not be written: its file system is full" in done.stderr
    assert "Traceback" not in done.stderr
    reports: list[str] = []
    store = CheckpointStore(directory)
    assert newest(store, reports) == 25
    assert reports == []
    assert sorted(path.name for path in directory.iterdir()) == ["fence", "step_00000025"]
