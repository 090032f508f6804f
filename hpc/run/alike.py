"""How is a config written as what differs from another one, so that it comes back as it was?

A difference is a path with the value that stands there, or a path alone where nothing does. Mappings keep the order of
their keys: where that differs, too, the whole mapping is the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Difference = Sequence[Any]


def differences(old: Any, new: Any, path: tuple[Any, ...] = ()) -> Iterator[Difference]:
    """What turns `old` into `new`.

    Args:
        old: Mappings, lists and plain values.
        new: As `old`; what it shares with it is not looked at.
        path: Where both stand.
    """
    if old is new:
        return
    if isinstance(old, dict) and isinstance(new, dict) and _in_order(old, new):
        yield from ([[*path, key]] for key in old if key not in new)
        for key, value in new.items():
            yield from differences(old[key], value, (*path, key)) if key in old else iter([[[*path, key], value]])
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for position, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(*pair, (*path, position))
    elif type(old) is not type(new) or repr(old) != repr(new) or old != new:
        yield [list(path), new]


def changed(old: Any, what: Iterable[Difference]) -> Any:
    """The value that `differences` was given as `new`; parts of it are those of `old`.

    Raises:
        LookupError, TypeError, ValueError: They are no differences from `old`.
    """
    new = old
    for path, *value in what:
        new = _changed(new, path, value)
    return new


def _in_order(old: dict[Any, Any], new: dict[Any, Any]) -> bool:
    """Whether taking keys away from one and adding others gives the other; 1 and true are one key to Python alone."""
    kept = [*(key for key in old if key in new), *(key for key in new if key not in old)]
    return kept == list(new) and list(map(type, kept)) == list(map(type, new))


def _changed(tree: Any, path: Sequence[Any], value: list[Any]) -> Any:
    if not path:
        (tree,) = value
        return tree
    key, *further = path
    copy = tree.copy()
    if further:
        copy[key] = _changed(tree[key], further, value)
    elif value:
        (copy[key],) = value
    else:
        del copy[key]
    return copy
