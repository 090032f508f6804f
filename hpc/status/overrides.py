"""What tells the points of a sweep apart? The overrides that differ, and how a person names a point by them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hpc.errors import ConfigurationError


def values_of(overrides: Sequence[str]) -> dict[str, str]:
    """Each key that was typed, and its value as it was typed: `+optimizer.lr=1e-3` has the key optimizer.lr."""
    pairs = (override.partition("=") for override in overrides)
    return {key.lstrip("+~"): value for key, _, value in pairs}


def differing_keys(points: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys whose values are not the same for all points, in the order in which they were typed."""
    keys = dict.fromkeys(key for values in points for key in values)
    first = points[0] if points else {}
    return [key for key in keys if any(values.get(key) != first.get(key) for values in points)]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key, or more of it where another key ends alike: lr for optimizer.lr."""
    return {key: _short(key, keys) for key in keys}


def fits(values: Mapping[str, str], asked: Sequence[tuple[str, str]]) -> bool:
    """Whether a point has all of these values; 3e-4 is 0.0003."""
    return all(key in values and same_value(values[key], value) for key, value in asked)


def find_key(name: str, keys: Sequence[str]) -> str:
    """The key that is meant by its end: lr for optimizer.lr.

    Raises:
        ConfigurationError: None of the sweep's keys ends so, or several do.
    """
    found = [key for key in keys if key == name] or [
        key for key in keys if _parts(key)[-len(_parts(name)) :] == _parts(name)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigurationError(f"{name} must name one override of the sweep, but may be {' or '.join(found)}.")
    known = ", ".join(keys) or "none"
    raise ConfigurationError(f"{name} must be an override of the sweep, but these are: {known}.")


def same_value(one: str, other: str) -> bool:
    """Equal as numbers where both are numbers, else as texts without their quotes."""
    try:
        return float(one.replace("_", "")) == float(other.replace("_", ""))
    except ValueError:
        return _bare(one) == _bare(other)


def _bare(value: str) -> str:
    text = value.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _short(key: str, keys: Sequence[str]) -> str:
    parts = _parts(key)
    ends = [parts[start:] for start in range(len(parts) - 1, -1, -1)]
    alone = (end for end in ends if sum(_parts(each)[-len(end) :] == end for each in keys) == 1)
    return ".".join(next(alone, parts))


def _parts(key: str) -> list[str]:
    return re.split(r"[./@]", key)
