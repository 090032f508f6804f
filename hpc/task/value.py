"""What of a training function's value can finished.json hold?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any


def as_json(value: Any, where: str = "The training function's value") -> Any:
    """A value as JSON has it: a number in any dress is that number, also inside sequences and mappings.

    Args:
        value: A number of Python, NumPy or torch, a text, true, false, null, or a list or mapping of these.
        where: What it is, for the sentence.

    Raises:
        TypeError: It is something else.
    """
    try:
        found = _plain(value, where)
        json.dumps(found)
    except (ValueError, OverflowError, RecursionError) as error:  # too large for a float or for digits; without end
        raise TypeError(f"{where} must be what finished.json can hold, but is not: {error}.") from error
    return found


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value if not isinstance(value, Enum) else str(value.value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (float, Decimal, Fraction)):
        return float(value)
    if isinstance(value, Mapping):
        return {str(_plain(key, where)): _plain(each, f"{where} at {key}") for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_plain(each, f"{where} at {number}") for number, each in enumerate(value)]
    return _plain(_one_number(value, where), where)


def _one_number(value: Any, where: str) -> bool | int | float | str:
    """The only element of a tensor or an array; both have `item`, which needs neither of them imported."""
    try:
        found = value.item()
    except Exception as error:  # none, or several of them; or a tensor without data
        raise _refused(value, where) from error
    if isinstance(found, (bool, int, float, str)):
        return found
    raise _refused(value, where)


def _refused(value: Any, where: str) -> TypeError:
    shape = getattr(value, "shape", None)
    kind = type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")
    return TypeError(
        f"{where} must be a number, a text, or a list or mapping of these to be kept in finished.json, but is a {kind}."
    )
