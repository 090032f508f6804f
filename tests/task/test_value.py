"""A number in any dress is kept as that number; anything else is named."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from hpc.task.value import as_json


class Level(IntEnum):
    HIGH = 3


class Name(str, Enum):
    BEST = "best"


class Score(float):
    pass


endless: list[Any] = []
endless.append(endless)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        ("text", "text"),
        (Level.HIGH, 3),
        (Name.BEST, "best"),
        (Score(0.25), 0.25),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 4), 0.25),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array(0.5), 0.5),
        (np.array([[7]]), 7),
        ((0.5, 2), [0.5, 2]),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([3]), 3),
        (torch.tensor(True), True),
        (torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), 0.5),
        ({"loss": torch.tensor(0.5), "n": (np.int32(1), 2)}, {"loss": 0.5, "n": [1, 2]}),
        (OrderedDict(a=[{}]), {"a": [{}]}),
        ({1: 2}, {"1": 2}),
        (OmegaConf.create({"a": [1, {"b": 0.5}]}), {"a": [1, {"b": 0.5}]}),
        (deque([1, np.float32(0.5)]), [1, 0.5]),
        (range(2), [0, 1]),
    ],
)
def test_a_number_in_any_dress_is_kept(value: Any, kept: Any) -> None:
    found = as_json(value)
    assert json.loads(json.dumps(found)) == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.zeros(2), "but is a Tensor of shape \\(2,\\)"),
        (torch.zeros(1, device="meta"), "but is a Tensor"),
        (np.zeros((2, 2)), "but is a ndarray of shape \\(2, 2\\)"),
        (1j, "but is a complex"),
        (np.complex64(1), "but is a complex64"),
        ({1, 2}, "but is a set"),
        (object(), "but is a object"),
        (torch.nn.Linear(1, 1), "but is a Linear"),
        (print, "but is a builtin_function_or_method"),
        ({"a": [1, torch.zeros(3)]}, "value at a at 1 must be"),
        (b"bytes", "but is a bytes"),
        ([10**5000], "finished.json can hold, but is not: Exceeds the limit"),
        (Fraction(10**400), "finished.json can hold"),
        (Decimal("sNaN"), "finished.json can hold"),
        (endless, "finished.json can hold, but is not: maximum recursion"),
    ],
)
def test_anything_else_is_named(value: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        as_json(value)
