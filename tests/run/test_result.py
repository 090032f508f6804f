"""finished.json: what a finished run wrote, and what becomes of a file that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.errors import LoadError
from hpc.run.result import Result, read_result, write_result


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_result(tmp_path, {"loss": 0.5})
    assert read_result(tmp_path) == Result({"loss": 0.5})


def test_a_run_without_the_file_is_not_finished(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"7", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_none_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "finished.json").write_bytes(content)
    with pytest.raises(LoadError, match="must be what a finished run wrote, but cannot be read as that"):
        read_result(tmp_path)


def test_a_directory_in_its_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "finished.json").mkdir()
    with pytest.raises(LoadError, match="must be what a finished run wrote"):
        read_result(tmp_path)
