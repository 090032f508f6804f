"""A config comes back from its line of JSON as it was written."""

from __future__ import annotations

import json
import math
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.config.changes import changed_keys
from hpc.errors import ConfigurationError
from hpc.run import frozen


class Colour(Enum):
    RED = 1


keys = st.one_of(st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False), st.binary())
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(keys, values, max_size=4))
def test_every_config_comes_back(config: dict[Any, Any]) -> None:
    found = frozen.loads(frozen.dumps(config))
    assert changed_keys(config, found) == []
    assert repr(found) == repr(config)


@pytest.mark.parametrize(
    "config",
    [
        {"weights": {0: 1.0, 3: 5.0}},
        {"weights": {True: 1, False: 2}},
        {"a": {1: "int", "1": "text"}},
        {"a": {1.5: {None: 0}}},
        {"hpc:mapping": [[1, 2]], "hpc:bytes": "x"},
        {"path": Path("/a b/ü"), "raw": b"\x00\xff", "colour": Colour.RED, "by colour": {Colour.RED: 1}},
        {"text": "line\nline\u2028line \\ \" ' \ud800"},
        {"big": 2**80, "small": -0.0, "inf": [math.inf, -math.inf]},
    ],
)
def test_kinds_that_json_has_not_come_back(config: dict[Any, Any]) -> None:
    line = frozen.dumps(config)
    assert "\n" not in line
    assert len(line.splitlines()) == 1
    assert repr(frozen.loads(line)) == repr(config)


def test_what_json_has_is_written_as_json() -> None:
    config = {"lr": 1e-3, "on": True, "list": [1, None, {"a": "b"}]}
    assert json.loads(frozen.dumps(config)) == config


def test_a_value_of_another_kind_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"a\.b\[1\] must be a number, a text, .* but is a set"):
        frozen.dumps({"a": {"b": [1, {2}]}})


def test_not_a_number_has_not_changed() -> None:
    assert changed_keys({"a": math.nan, "b": [math.nan]}, {"a": math.nan, "b": [math.nan]}) == []
    assert changed_keys({"a": math.nan}, {"a": 0.0}) == ["a"]


def test_keys_of_another_type_are_other_keys() -> None:
    assert changed_keys({"a": {1: 0}}, {"a": {"1": 0}}) == ["a.1"]
