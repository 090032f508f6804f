"""What a save has not made is not deleted, and what it makes nobody else can write."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc.checkpoint.load import load_latest
from hpc.checkpoint.retention import Retention
from hpc.checkpoint.save import commit, snapshot
from hpc.checkpoint.state import TrainingState
from hpc.errors import SaveError
from tests.checkpoint.test_engines import Engine
from tests.checkpoint.test_store import flip_a_bit
from tests.conftest import ROOT, clean_environment
from tests.support.saves import Alone, Life, state

NOBODY = 65534


def filled(directory: Path) -> Path:
    """A folder that somebody wants to keep."""
    directory.mkdir(parents=True)
    (directory / "model.safetensors").write_text("precious")
    (directory / "notes.txt").write_text("precious")
    return directory


def linked(directory: Path) -> Path:
    """A link to a folder that looks as ours do."""
    real = Life(directory.parent.parent / f"of {directory.name}" / "checkpoints").save(5).directory
    directory.symlink_to(real)
    return directory


def nested(directory: Path) -> Path:
    """A folder in a folder, and nothing of a save beside it."""
    filled(directory / "backup")
    return directory


def with_a_link(directory: Path) -> Path:
    """A link to something precious, where a file of a save would be."""
    directory.mkdir()
    filled(directory.parent.parent / f"beside {directory.name}")
    (directory / "trainer.pt").symlink_to(directory.parent.parent / f"beside {directory.name}" / "notes.txt")
    return directory


FOREIGN: dict[str, Callable[[Path], Path]] = {
    "best": filled, "step_00000100.tmp-mine": filled, "step_00000100.tmp-cafe": filled, "step_100": filled,
    "my_step_00000100.tmp-cafe": filled, "removed-step_00000001.tmp-cafe": nested, "step_00000002": filled,
    "step_00000003.tmp-cafe": linked, "step_00000004": linked, "step_00000005.tmp-beef": with_a_link,
    "removed-step_00000006.tmp-beef": linked, "step_00000007.tmp-": filled, "step_00000007.tmp-cafe.bak": filled,
}  # fmt: skip


def engine(word: str) -> TrainingState:
    return TrainingState([], [], {}, {"engine": Engine(word)})


def everything(directory: Path) -> dict[str, str]:
    """Every path below a directory, and what it is."""
    found = {}
    for path in sorted(directory.rglob("*")):
        kind = str(path.readlink()) if path.is_symlink() else path.read_bytes().hex() if path.is_file() else "directory"
        found[str(path.relative_to(directory))] = kind
    return found


def test_what_no_save_has_made_stays(tmp_path: Path) -> None:
    """Through the beginning of a life, saves that prune, saves that fail, and a step that comes again."""
    directory = tmp_path / "checkpoints"
    for name, make in FOREIGN.items():
        make(directory / name)
    before = everything(tmp_path)
    life = Life(directory, Retention(keep=1))
    for step in (8, 9, 10):
        life.save(step)
    with pytest.raises(SaveError):
        commit(
            life.store, Alone(), snapshot(TrainingState([], [], {}, {"engine": Engine("unspeakable")}), 11, 0, {}, {})
        )
    Life(directory, Retention(keep=1)).save(12)
    after = everything(tmp_path)
    assert {name: after.get(name) for name in before} == before
    assert [each.step for each in life.store.list()] == [12, 4]


@pytest.mark.parametrize("make", [filled, linked, with_a_link])
def test_what_has_the_name_of_the_next_checkpoint_is_put_aside(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    directory = tmp_path / "checkpoints"
    (directory).mkdir()
    make(directory / "step_00000008")
    before = sorted(everything(tmp_path).values())
    life = Life(directory)
    saved = life.save(8)
    assert not saved.directory.is_symlink()
    (aside,) = directory.glob("step_00000008.kept-*")
    shutil.rmtree(saved.directory)
    (directory / "fence").unlink()
    assert sorted(everything(tmp_path).values()) == before
    assert aside.is_symlink() == (make is linked)


def test_notes_in_a_checkpoint_keep_it(tmp_path: Path) -> None:
    life = Life(tmp_path, Retention(keep=1))
    noted = life.save(1).directory
    (noted / "notes.txt").write_text("the one that was published")
    life.save(2)
    life.save(3)
    assert [each.step for each in life.store.list()] == [3, 1]
    assert (noted / "notes.txt").exists()


def test_an_engines_folder_is_pruned_with_its_checkpoint(tmp_path: Path) -> None:
    life = Life(tmp_path, Retention(keep=1))
    for step in (1, 2):
        commit(life.store, Alone(), snapshot(engine("word"), step, 0, {}, {}))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["fence", "step_00000002"]


def test_what_was_just_committed_stays_below_a_newer_one_that_cannot_be_loaded(tmp_path: Path) -> None:
    life = Life(tmp_path, Retention(keep=1))
    flip_a_bit(life.save(40).directory)
    heir = Life(tmp_path, Retention(keep=1))
    assert load_latest(heir.store, state(), Alone(), print) is None
    heir.save(30)
    assert [each.step for each in heir.store.list()] == [40, 30]


def test_a_directory_of_checkpoints_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    Life(tmp_path / "other").save(1)
    before = everything(tmp_path / "other")
    (tmp_path / "checkpoints").symlink_to(tmp_path / "other")
    with pytest.raises(SaveError, match="it is a link"):
        Life(tmp_path / "checkpoints")
    assert everything(tmp_path / "other") == before


def test_a_pipe_for_a_fence_hangs_nobody(tmp_path: Path) -> None:
    life = Life(tmp_path)
    (tmp_path / "fence").unlink()
    os.mkfifo(tmp_path / "fence")
    with pytest.raises(SaveError, match="could not be written"):
        life.save(1)


@pytest.fixture(params=[0o000, 0o002, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


class Careless(Engine):
    """Creates its files as other libraries do."""

    def save_files(self, directory: Path) -> None:
        super().save_files(directory)
        os.close(os.open(directory / "open-to-all", os.O_CREAT | os.O_WRONLY, 0o777))


def test_nobody_else_writes_whatever_the_umask_and_others_read_if_it_lets_them(tmp_path: Path, umask: int) -> None:
    life = Life(tmp_path / "run" / "checkpoints")
    life.save(1)
    engines = TrainingState([], [], {}, {"engine": Careless("word")})
    commit(life.store, Alone(), snapshot(engines, 2, 0, {}, {}))
    for path in [tmp_path / "run", *(tmp_path / "run").rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o022 == 0, path
        least = 0o755 if path.is_dir() else 0o644
        assert mode & least == least & ~umask, path
    assert os.umask(umask) == umask


COLLEAGUE = """
import contextlib, io, os, sys
from hpc.cli import main
run, output = sys.argv[1:]
def hpc(*arguments):
    with contextlib.suppress(SystemExit):
        main(["checkpoint", *arguments])
    sys.stdout.flush()
assert os.geteuid() == 65534
hpc("ls", run)
hpc("verify", run)
hpc("export", run)
hpc("export", run, "--output", output)
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becomes another user")
def test_a_colleague_lists_verifies_and_exports_without_writing(tmp_path: Path) -> None:
    run, own = tmp_path / "run", tmp_path / "own"
    Life(run / "checkpoints").save(3, loss=0.5)
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    for parent in (tmp_path, *tmp_path.parents):  # pytest keeps its folders to itself
        if stat.S_IMODE(parent.stat().st_mode) & 0o011 != 0o011:
            parent.chmod(stat.S_IMODE(parent.stat().st_mode) | 0o011)
    before = _untouched(run)
    command = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups",
               sys.executable, "-c", COLLEAGUE, str(run), str(own / "model.safetensors")]  # fmt: skip
    environment = clean_environment(HOME=str(own), PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "loss 0.5" in done.stdout
    assert "3 files as they were written" in done.stdout
    assert "--output must name a file, because" in done.stderr
    assert f"{own / 'model.safetensors'}: step 3" in done.stdout
    assert (own / "model.safetensors").stat().st_uid == NOBODY
    assert _untouched(run) == before


def _untouched(directory: Path) -> dict[str, tuple[int, int, int]]:
    found = [directory, *directory.rglob("*")]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size, path.stat().st_mode) for path in found}
