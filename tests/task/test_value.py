"""What finished.json keeps of a returned value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hpc.task.value import as_json


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
def test_a_number_in_any_dress_is_kept(value: Any, expected: Any) -> None:
    assert as_json(value) == expected


@pytest.mark.parametrize("value", [torch.ones(2), np.ones(2), object(), {"a": torch.ones(2)}, {1, 2}])
def test_what_it_has_none_for_is_not(value: Any) -> None:
    with pytest.raises(TypeError, match=r"to be kept in finished\.json, but is a"):
        as_json(value)
