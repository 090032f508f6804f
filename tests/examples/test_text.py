from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import pytest
import torch
from torch.utils.data import DataLoader

import hpc
from hpc.errors import ConfigurationError
from hpc.examples.text import ByteBlocks, read_text, text_of


def write_numbered_files(folder: Path, count: int) -> None:
    for number in range(count):
        part = folder / f"part{number % 3}"
        part.mkdir(parents=True, exist_ok=True)
        (part / f"{number:03}.txt").write_text(f"<{number:03}>" * 5)


def numbers(text: bytes) -> set[int]:
    return {int(mark[:3]) for mark in text.decode().split("<")[1:]}


@pytest.mark.parametrize(("files", "held_out_files"), [(2, 1), (20, 1), (21, 2), (100, 5)])
def test_a_twentieth_of_the_files_rounded_up_is_held_out(tmp_path: Path, files: int, held_out_files: int) -> None:
    write_numbered_files(tmp_path, files)
    text = read_text(str(tmp_path))
    assert len(numbers(text.held_out)) == held_out_files
    assert numbers(text.training) == set(range(files)) - numbers(text.held_out)


def test_every_file_is_whole_and_in_one_part_only(tmp_path: Path) -> None:
    write_numbered_files(tmp_path, 60)
    text = read_text(str(tmp_path))
    contents = {path.read_bytes() for path in tmp_path.rglob("*.txt")}
    training, held_out = (set(part.split(b"\n")) for part in text)
    assert training | held_out == contents
    assert not training & held_out


def test_the_split_depends_on_names_only(tmp_path: Path) -> None:
    write_numbered_files(tmp_path / "one", 60)
    write_numbered_files(tmp_path / "other", 60)
    for path in (tmp_path / "other").rglob("*.txt"):
        path.write_text(path.read_text() * 2)
    one, other = (numbers(read_text(str(tmp_path / name)).held_out) for name in ("one", "other"))
    assert one == other


def test_the_standard_library_is_split_alike_in_every_process() -> None:
    script = "from zlib import crc32; from hpc.examples.text import read_text; print(*map(crc32, read_text()))"
    elsewhere = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(hpc.__path__[0]).parent)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert elsewhere.split() == [str(crc32(part)) for part in read_text()]


def test_the_standard_library_is_a_few_megabytes_of_its_own_sources() -> None:
    text = read_text()
    assert 4e6 < len(text.training) < 2e7
    assert 0.01 < len(text.held_out) / len(text.training) < 0.15
    assert b"class ArgumentParser" in text.training + text.held_out
    assert b"scaled_dot_product_attention" not in text.training + text.held_out


def test_the_last_twentieth_of_a_single_file_is_held_out(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(bytes(range(32, 127)) + b"12345")
    text = read_text(str(path))
    assert text == (bytes(range(32, 127)), b"12345")
    assert read_text(str(tmp_path)) == text


def test_hidden_and_binary_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    for name, content in {"a": b"one", "b": b"two", ".c": b"no", ".git/d": b"no", "e": b"no\0"}.items():
        (tmp_path / name).write_bytes(content)
    assert sorted(read_text(str(tmp_path))) == [b"one", b"two"]


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.path must be .*'.*/nowhere' does not exist: correct it"):
        read_text(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("content", [None, b"", b"\x7fELF\0"], ids=["nothing", "empty file", "binary file"])
@pytest.mark.parametrize("target", [".", "file"])
def test_a_path_without_text_is_refused(tmp_path: Path, content: bytes | None, target: str) -> None:
    if content is None:
        target = "."
    else:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"data\.path must hold text, but .* has none"):
        read_text(str(tmp_path / target))


@pytest.mark.parametrize(("text", "block_size"), [(b"12345678", 8), (b"", 1), (b"12345678", 0), (b"12345678", -1)])
def test_a_text_that_does_not_fill_a_block_is_refused(text: bytes, block_size: int) -> None:
    message = rf"data\.block_size must be at least 1 and less than the {len(text)} bytes .* but is {block_size}:"
    with pytest.raises(ConfigurationError, match=message):
        ByteBlocks(text, block_size)


@pytest.mark.parametrize(("length", "blocks"), [(9, 1), (16, 1), (17, 2), (24, 2), (25, 3)])
def test_blocks_cover_the_text_once_and_labels_are_one_byte_ahead(length: int, blocks: int) -> None:
    text = bytes(range(length))
    dataset = ByteBlocks(text, 8)
    assert len(dataset) == blocks
    items = [dataset[i] for i in range(len(dataset))]
    assert torch.cat([item["input_ids"] for item in items]).tolist() == list(text[: 8 * blocks])
    assert torch.cat([item["labels"] for item in items]).tolist() == list(text[1 : 8 * blocks + 1])
    assert {item[key].dtype for item in items for key in item} == {torch.int64}


def test_a_block_past_the_end_is_an_index_error() -> None:
    with pytest.raises(IndexError, match="out of bounds"):
        ByteBlocks(b"123456789", 8)[1]


def test_a_batch_holds_the_items_asked_for_in_order() -> None:
    dataset = ByteBlocks(bytes(range(100)), 8)
    order = [7, 0, 3, 3]
    batch = next(iter(DataLoader(dataset, batch_sampler=[order])))
    for key in ("input_ids", "labels"):
        assert torch.equal(batch[key], torch.stack([dataset[i][key] for i in order]))


@pytest.mark.parametrize(("ids", "text"), [(b"def f():\n", "def f():\n"), (b"caf\xc3\xa9 \xc3", "caf\u00e9 \ufffd")])
def test_ids_become_text_even_when_they_are_not_utf8(ids: bytes, text: str) -> None:
    assert text_of(torch.tensor(list(ids))) == text
