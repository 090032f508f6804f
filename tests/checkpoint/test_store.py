"""A checkpoint is complete or invisible, and a damaged one is never loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hpc.checkpoint.load import load_latest
from hpc.checkpoint.retention import Retention
from hpc.checkpoint.save import commit, snapshot
from hpc.checkpoint.store import Checkpoint, CheckpointStore, damage
from hpc.checkpoint.untrusted import read_manifest
from hpc.errors import SaveError
from tests.support.saves import Alone, Life, newest, state

FILES = ["manifest.json", "model.safetensors", "optimizer.safetensors", "trainer.pt"]


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path / "checkpoints")


def names(life: Life) -> list[str]:
    return sorted(path.name for path in life.store.directory.iterdir())


def test_a_commit_is_visible_and_verified(life: Life) -> None:
    committed = life.save(12, held_out_loss=0.5)
    assert committed.directory.name == "step_00000012"
    assert damage(committed) == []
    assert newest(life.store, []) == 12
    assert sorted(path.name for path in committed.directory.iterdir()) == FILES
    assert read_manifest(committed.directory).metrics == {"held_out_loss": 0.5}


def test_any_reader_of_safetensors_opens_the_weights(life: Life) -> None:
    weights = load_file(life.save(1, 7.0).directory / "model.safetensors")
    assert weights.keys() == state().models[0].state_dict().keys()
    assert all(bool((tensor == 7).all()) for tensor in weights.values())


def flip_a_bit(directory: Path) -> None:
    content = bytearray((directory / "model.safetensors").read_bytes())
    content[5000] ^= 1
    (directory / "model.safetensors").write_bytes(content)


def punch_a_hole(directory: Path) -> None:
    content = bytearray((directory / "optimizer.safetensors").read_bytes())
    content[8192:12288] = bytes(4096)
    (directory / "optimizer.safetensors").write_bytes(content)


def truncate(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes((directory / "model.safetensors").read_bytes()[:-1])


def empty(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"")


def remove_a_file(directory: Path) -> None:
    (directory / "optimizer.safetensors").unlink()


def flip_a_bit_of_the_header(directory: Path) -> None:
    content = bytearray((directory / "model.safetensors").read_bytes())
    content[20] ^= 1
    (directory / "model.safetensors").write_bytes(content)


def flip_a_bit_of_the_trainer(directory: Path) -> None:
    content = bytearray((directory / "trainer.pt").read_bytes())
    content[-200] ^= 1
    (directory / "trainer.pt").write_bytes(content)


def cut_the_manifest(directory: Path) -> None:
    (directory / "manifest.json").write_bytes((directory / "manifest.json").read_bytes()[:100])


def change_the_manifest(directory: Path) -> None:
    content = (directory / "manifest.json").read_bytes()
    (directory / "manifest.json").write_bytes(content.replace(b'"offsets":[0,0]', b'"offsets":[1,0]', 1))


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (flip_a_bit, "model.safetensors does not have the checksum"),
        (punch_a_hole, "optimizer.safetensors does not have the checksum"),
        (truncate, r"model.safetensors should have \d+ bytes and has \d+"),
        (empty, r"model.safetensors should have \d+ bytes and has 0"),
        (remove_a_file, "optimizer.safetensors is missing"),
        (flip_a_bit_of_the_header, "model.safetensors does not have the checksum"),
        (flip_a_bit_of_the_trainer, "trainer.pt does not have the checksum"),
        (cut_the_manifest, "manifest.json cannot be read"),
        (change_the_manifest, "manifest.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_loaded(
    life: Life, harm: Callable[[Path], None], named: str
) -> None:
    life.save(1)
    harm(life.save(2).directory)
    reports: list[str] = []
    assert newest(life.store, reports) == 1
    fresh = state()
    resumed = load_latest(life.store, fresh, Alone(), reports.append)
    assert resumed is not None
    assert (resumed.checkpoint.step, resumed.trainer["step"]) == (1, 1)
    assert all(bool((tensor == 1).all()) for tensor in fresh.contents({}).tensors.values())
    assert len(reports) == 2
    for report in reports:
        assert "step_00000002 is passed over" in report
        assert re.search(named, report)


def test_every_flipped_bit_of_a_manifest_is_seen(life: Life) -> None:
    checkpoint = life.save(1)
    path = checkpoint.directory / "manifest.json"
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        assert "manifest.json" in damage(checkpoint)[0]


def test_a_directory_without_a_manifest_is_invisible(life: Life) -> None:
    life.save(1)
    (life.store.directory / "step_00000002").mkdir()
    (life.store.directory / "step_00000003.tmp-abc").mkdir()
    assert newest(life.store, []) == 1


def test_leftovers_of_a_killed_save_do_not_block_the_next(life: Life) -> None:
    for leftover in (
        "step_00000005.tmp-dead",
        "removed-step_00000003.tmp-beef",
        f"step_00000006.tmp-{life.store.token}",
    ):
        (life.store.directory / leftover).mkdir()
        (life.store.directory / leftover / "model.safetensors").write_bytes(b"half")
    life.save(6)
    heir = Life(life.store.directory)
    heir.save(7)
    assert names(heir) == ["fence", "step_00000006", "step_00000007"]


def test_a_commit_over_an_own_checkpoint_leaves_it_alone(life: Life) -> None:
    first = life.save(1, 1.0)
    assert life.save(1, 2.0) == first
    assert float(load_file(first.directory / "model.safetensors")["0.bias"][0]) == 1.0
    assert names(life) == ["fence", "step_00000001"]


def test_a_damaged_checkpoint_makes_way_when_its_step_comes_again(life: Life) -> None:
    life.save(1)
    flip_a_bit(life.save(2).directory)
    heir = Life(life.store.directory)
    assert damage(heir.save(2)) == []
    assert names(heir) == ["fence", "step_00000001", "step_00000002"]


def test_an_older_life_cannot_commit(life: Life) -> None:
    life.save(1)
    Life(life.store.directory)
    with pytest.raises(SaveError, match="a newer one has started"):
        life.save(2)
    assert names(life) == ["fence", "step_00000001"]


def test_a_save_that_an_heir_has_swept_away_is_not_committed(life: Life) -> None:
    class Late(Alone):
        """Its others have died, and the next life has begun, when it goes on."""

        def gather(self, value: object) -> list[object]:
            Life(life.store.directory)
            return [value]

    life.save(1)
    with pytest.raises(SaveError, match=r"has vanished|a newer one has started"):
        commit(life.store, Late(), life.contents(2, 2.0))
    assert names(life) == ["fence", "step_00000001"]


def test_a_tensor_that_no_file_can_hold_leaves_the_older_checkpoint_and_nothing_else(life: Life) -> None:
    life.save(1)
    odd = state()
    odd.models[0].register_buffer("odd", torch.zeros(2, device="meta"))
    with pytest.raises(SaveError, match="meta tensor; no data"):
        commit(life.store, Alone(), snapshot(odd, 2, 0, {}, {}))
    assert names(life) == ["fence", "step_00000001"]


def test_nothing_yet_is_no_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "none")
    assert store.list() == []
    assert newest(store, []) is None


def test_steps_beyond_eight_digits_are_ordered_by_number(life: Life) -> None:
    life.save(99_999_999)
    life.save(100_000_000)
    assert [checkpoint.step for checkpoint in life.store.list()] == [100_000_000, 99_999_999]
    assert isinstance(life.store.list()[0], Checkpoint)


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (Retention(keep=2), [9, 8]),
        (Retention(keep=1), [9]),
        (Retention(keep=1, keep_every_steps=4), [9, 8, 4]),
        (Retention(keep=1, best_metric="loss"), [9, 3]),
        (Retention(keep=1, best_metric="loss", best_mode="max"), [9, 7]),
        (Retention(keep=1, best_metric="accuracy"), [9]),
    ],
)
def test_retention_keeps_the_newest_the_regular_and_the_best(
    tmp_path: Path, retention: Retention, kept: list[int]
) -> None:
    life = Life(tmp_path, retention)
    for step in range(1, 10):
        life.save(step, loss={3: 0.1, 7: 0.9}.get(step, 0.5))
    assert [checkpoint.step for checkpoint in life.store.list()] == kept


def test_the_one_that_was_loaded_stays_until_a_newer_one_has_been(life: Life) -> None:
    life.save(1)
    heir = Life(life.store.directory, Retention(keep=1))
    load_latest(heir.store, state(), Alone(), print)
    for step in (2, 3):
        heir.save(step)
    assert [checkpoint.step for checkpoint in heir.store.list()] == [3, 1]
    third = Life(life.store.directory, Retention(keep=1))
    load_latest(third.store, state(), Alone(), print)
    third.save(4)
    assert [checkpoint.step for checkpoint in third.store.list()] == [4, 3]
