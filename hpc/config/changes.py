"""What may change between the lives of a run, and what has?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAY_CHANGE = ("hardware", "cluster", "container", "launch", "strategy", "runtime", "checkpoint")
"""A run may go on elsewhere, on more or fewer nodes, divided in another way; what else changes makes another run."""
MUST_STAY = ("strategy.precision", "strategy.accumulation_steps", "runtime.deterministic")
"""Of those sections, what the numbers depend on."""


def forbidden_changes(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> list[str]:
    """Dotted keys that differ and must not, in order."""
    changed = changed_keys(old, new)
    return [key for key in changed if key in MUST_STAY or key.partition(".")[0] not in MAY_CHANGE]


def changed_keys(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> list[str]:
    """Dotted keys whose values differ, in order: `optimizer.lr`."""
    before, after = dict(_paths(old)), dict(_paths(new))
    gone = before.keys() ^ after.keys()
    changed = {path for path in before.keys() & after.keys() if not _same(before[path], after[path])}
    return sorted({".".join(map(str, path)) for path in gone | changed})


def leaves(tree: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Every value of a config under its dotted key; a section without keys is a value too."""
    return ((".".join(map(str, path)), value) for path, value in _paths(tree))


def _paths(tree: Mapping[Any, Any], prefix: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def _same(left: Any, right: Any) -> bool:
    """Equal; a value that is not a number is equal to another such one."""
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return not changed_keys(left, right)
    return bool(left == right) or (_is_nan(left) and _is_nan(right))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value
