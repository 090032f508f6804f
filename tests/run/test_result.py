"""finished.json: what is kept of a returned value, and what becomes of a file that is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpc.errors import LoadError
from hpc.run.result import Result, kept, read_result, write_result


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, 0.5),
        (True, True),
        ("best", "best"),
        (None, None),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([3]), 3),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.array([0.5]), 0.5),
        ((0.5, 2), [0.5, 2]),
        ({"loss": 0.5, "folds": [1, 2]}, {"loss": 0.5, "folds": [1, 2]}),
    ],
)
def test_what_json_has_a_form_for_is_kept(tmp_path: Path, value: Any, expected: Any) -> None:
    write_result(tmp_path, kept(value))
    assert read_result(tmp_path) == Result(expected)


@pytest.mark.parametrize("value", [torch.ones(2), np.ones(2), object(), {"a": torch.ones(1)}, {1, 2}, {(1, 2): 3}])
def test_what_it_has_none_for_is_not(value: Any) -> None:
    with pytest.raises(TypeError):
        kept(value)


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
