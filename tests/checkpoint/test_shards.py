"""One name space: what any number of ranks has saved, sharded or not, any other number loads, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.checkpoint.shards import chunk, overlap
from hpc.checkpoint.untrusted import read_manifest
from tests.conftest import ROOT, clean_environment
from tests.support.checkpoint_ranks import SAVED

pytestmark = pytest.mark.gloo


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every world of SAVED has saved and loaded here."""
    directory = tmp_path_factory.mktemp("worlds")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.checkpoint_ranks", str(directory)],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == sum(len(others) for _, _, others in SAVED)
    return directory


def files(saved: Path, size: int) -> list[str]:
    return sorted(path.name for path in (saved / f"saved_by_{size}" / "step_00000002").iterdir())


def test_each_rank_writes_its_own_part_of_what_is_sharded(saved: Path) -> None:
    each = [f"{kind}.rank_0000{rank}.safetensors" for kind in ("model", "optimizer", "others") for rank in (0, 1)]
    assert files(saved, 2) == ["manifest.json", *each, "trainer.pt"]


def test_only_the_first_replica_writes(saved: Path) -> None:
    assert files(saved, 4) == files(saved, 2)


def test_whole_tensors_have_the_same_names_as_sharded_ones(saved: Path) -> None:
    whole, sharded = (read_manifest(saved / f"saved_by_{size}" / "step_00000002").written for size in (1, 2))
    assert whole.tensors.keys() == sharded.tensors.keys()
    assert {name: entry.shape for name, entry in whole.tensors.items()} == {
        name: entry.shape for name, entry in sharded.tensors.items()
    }
    assert "optimizer/first.weight/exp_avg" in whole.tensors
    assert whole.aliases == sharded.aliases == {"model/last.weight": "model/first.weight"}


def test_pieces_cover_every_tensor_once(saved: Path) -> None:
    for size, _, _ in SAVED:
        written = read_manifest(saved / f"saved_by_{size}" / "step_00000002").written
        for entry in written.tensors.values():
            places = sorted((piece.offsets, piece.shape) for piece in entry.pieces)
            rows = [row for offsets, shape in places for row in range(*_rows(offsets, shape))]
            assert rows == [*range(entry.shape[0] if entry.shape else 1)]


def _rows(offsets: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, int]:
    return (offsets[0], offsets[0] + shape[0]) if shape else (0, 1)


def test_a_shard_is_a_safetensors_file(saved: Path) -> None:
    content = (saved / "saved_by_2" / "step_00000002" / "model.rank_00001.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert header["first.weight"]["shape"] == [3, 5]
    assert max(entry["data_offsets"][1] for entry in header.values()) == len(content) - 8 - length


@given(st.integers(0, 40), st.integers(1, 9))
def test_chunks_are_consecutive_and_cover_everything(length: int, count: int) -> None:
    chunks = [chunk(length, count, index) for index in range(count)]
    assert [row for begin, end in chunks for row in range(begin, end)] == [*range(length)]


boxes = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=2)


@given(boxes, boxes)
def test_an_overlap_is_what_both_boxes_hold(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    found = overlap(*zip(*first, strict=True), *zip(*second, strict=True))
    cells = [{(x, y) for x in range(b[0][0], sum(b[0])) for y in range(b[1][0], sum(b[1]))} for b in (first, second)]
    if found is None:
        assert cells[0].isdisjoint(cells[1])
        return
    for slices, box in zip(found, (first, second), strict=True):
        rows, columns = (range(s.start + b[0], s.stop + b[0]) for s, b in zip(slices, box, strict=True))
        assert {(x, y) for x in rows for y in columns} == cells[0] & cells[1]
