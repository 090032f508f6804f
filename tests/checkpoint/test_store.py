"""A checkpoint is complete or invisible, and a damaged one is never loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc.checkpoint.store import Checkpoint, CheckpointStore, HashingWriter, Writers, damage
from hpc.errors import SaveError


def writers(text: str) -> Writers:
    def write(writer: HashingWriter) -> None:
        writer.write(text.encode() * 1000)

    return {"model.pt": write, "optimizer.pt": write}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    result = CheckpointStore(tmp_path / "checkpoints", keep=2)
    result.acquire()
    return result


def newest(store: CheckpointStore, reports: list[str]) -> int | None:
    found = store.latest(reports.append)
    return found.step if found else None


def test_a_commit_is_visible_and_verified(store: CheckpointStore) -> None:
    committed = store.commit(12, writers("a"))
    assert committed.directory.name == "step_00000012"
    assert damage(committed) is None
    assert newest(store, []) == 12
    assert sorted(path.name for path in committed.directory.iterdir()) == ["manifest.json", "model.pt", "optimizer.pt"]


def flip_a_bit(directory: Path) -> None:
    content = bytearray((directory / "model.pt").read_bytes())
    content[500] ^= 1
    (directory / "model.pt").write_bytes(content)


def punch_a_hole(directory: Path) -> None:
    content = bytearray((directory / "optimizer.pt").read_bytes())
    content[100:200] = bytes(100)
    (directory / "optimizer.pt").write_bytes(content)


def truncate(directory: Path) -> None:
    (directory / "model.pt").write_bytes((directory / "model.pt").read_bytes()[:-1])


def empty(directory: Path) -> None:
    (directory / "model.pt").write_bytes(b"")


def remove_a_file(directory: Path) -> None:
    (directory / "optimizer.pt").unlink()


def damage_the_manifest(directory: Path) -> None:
    (directory / "manifest.json").write_text('{"step": 2, "files": {"model.pt": {"by')


def swap_the_manifest(directory: Path) -> None:
    (directory / "manifest.json").write_text(json.dumps({"step": 2, "files": ["model.pt"]}))


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (flip_a_bit, "model.pt does not have the checksum"),
        (punch_a_hole, "optimizer.pt does not have the checksum"),
        (truncate, "model.pt should have 1000 bytes and has 999"),
        (empty, "model.pt should have 1000 bytes and has 0"),
        (remove_a_file, "optimizer.pt is missing"),
        (damage_the_manifest, "manifest.json cannot be read"),
        (swap_the_manifest, "manifest.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_passed_over(
    store: CheckpointStore, harm: Callable[[Path], None], named: str
) -> None:
    store.commit(1, writers("a"))
    harm(store.commit(2, writers("b")).directory)
    reports: list[str] = []
    assert newest(store, reports) == 1
    assert len(reports) == 1
    assert "step_00000002 is passed over" in reports[0]
    assert named in reports[0]


def test_a_directory_without_a_manifest_is_invisible(store: CheckpointStore) -> None:
    store.commit(1, writers("a"))
    (store.directory / "step_00000002").mkdir()
    (store.directory / "step_00000003.tmp-abc").mkdir()
    assert newest(store, []) == 1


def test_leftovers_of_a_killed_save_do_not_block_the_next(store: CheckpointStore) -> None:
    (store.directory / "step_00000005.tmp-dead").mkdir()
    heir = CheckpointStore(store.directory, keep=2)
    heir.acquire()
    heir.commit(5, writers("a"))
    assert [path.name for path in store.directory.glob("step_*")] == ["step_00000005"]


def test_the_newest_few_are_kept(store: CheckpointStore) -> None:
    for step in (1, 2, 3, 4):
        store.commit(step, writers("a"))
    assert [checkpoint.step for checkpoint in store.list()] == [4, 3]


def test_a_commit_over_an_existing_checkpoint_leaves_it_alone(store: CheckpointStore) -> None:
    first = store.commit(1, writers("a"))
    again = store.commit(1, writers("b"))
    assert again == first
    assert (first.directory / "model.pt").read_bytes() == b"a" * 1000


def test_an_older_life_cannot_commit(store: CheckpointStore) -> None:
    store.commit(1, writers("a"))
    CheckpointStore(store.directory, keep=2).acquire()
    with pytest.raises(SaveError, match="a newer one has started"):
        store.commit(2, writers("b"))
    assert [path.name for path in sorted(store.directory.glob("step_*"))] == ["step_00000001"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")])
def test_a_save_that_fails_leaves_the_older_checkpoint_and_nothing_else(
    store: CheckpointStore, failure: Exception
) -> None:
    def write(writer: HashingWriter) -> None:
        writer.write(b"half")
        raise failure

    store.commit(1, writers("a"))
    with pytest.raises(SaveError, match="could not be written"):
        store.commit(2, {"model.pt": write})
    assert [path.name for path in store.directory.glob("step_*")] == ["step_00000001"]
    assert newest(store, []) == 1


def test_nothing_yet_is_no_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "none", keep=2)
    assert store.list() == []
    assert newest(store, []) is None


def test_steps_beyond_eight_digits_are_ordered_by_number(store: CheckpointStore) -> None:
    store.commit(99_999_999, writers("a"))
    store.commit(100_000_000, writers("b"))
    assert [checkpoint.step for checkpoint in store.list()] == [100_000_000, 99_999_999]
    assert isinstance(store.list()[0], Checkpoint)
