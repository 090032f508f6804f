"""How does a value that is not a tensor get into a file that can be read without running code from it?

As what `torch.load(weights_only=True)` takes: None, numbers, texts, tensors, and lists, tuples and dicts of
these. Everything else becomes a dict with a TAG that says what it was, and comes back as that, type and all. What has
no such form is refused with the place where it stands, before anything is written.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import io
import random
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hpc.checkpoint.plain import FACTORIES, PATHS, TAG, Keep, fields_of, find, is_plain_dataclass, tensor_tag
from hpc.errors import ConfigurationError, LoadError

_AS_THEY_ARE = (type(None), bool, int, float, str)
_LONG_BITS = 1024
"""A whole number of more bits is written as text: torch's restricted reader takes 255 bytes (torch 2.6-2.13)."""


def packed(value: Any, place: str, keep: Keep | None = None) -> Any:
    """A value as it lies in the file; nothing of it is shared with the value.

    Args:
        value: Anything.
        place: What the value is called in a sentence.
        keep: What is done with tensors; without it, copies of them lie in the file.

    Raises:
        ConfigurationError: A part of it cannot be saved.
    """
    try:
        return _Packing(keep or copied).pack(value, place)
    except RecursionError:
        raise ConfigurationError(
            f"A checkpoint can hold values within values a hundred deep, but {place} is deeper: make it flatter."
        ) from None


def copied(place: str, tensor: torch.Tensor) -> dict[str, Any]:
    """A tensor that lies in the file itself, as training cannot change it any more."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.is_nested:
        raise unsavable(place, tensor)
    return tensor_tag(tensor, value=tensor.detach().clone())


def unsavable(place: str, value: Any) -> ConfigurationError:
    """The sentence about a value that no file can hold."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return ConfigurationError(
        f"A checkpoint can hold numbers, texts, tensors, numpy values, collections, enums and dataclasses, but {place} "
        f"is of type {name}: leave it out of the state dict, or turn it into one of these there."
    )


class _Raw:
    """A tensor of bytes that lies in the file as it is, whatever is done with other tensors."""

    def __init__(self, content: torch.Tensor) -> None:
        self.content = content


class _Packing:
    """One value on its way into a file."""

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self._above: set[int] = set()

    def pack(self, value: Any, place: str) -> Any:
        if type(value) in _AS_THEY_ARE:
            is_long = type(value) is int and value.bit_length() > _LONG_BITS
            return {TAG: "int", "value": hex(value)} if is_long else value
        if isinstance(value, torch.Tensor):
            return self.keep(place, value)
        if type(value) is _Raw:
            return value.content
        if id(value) in self._above:
            raise ConfigurationError(f"A checkpoint can hold no value that contains itself, but {place} does.")
        self._above.add(id(value))
        try:
            return self._converted(value, place)
        finally:
            self._above.discard(id(value))

    def _converted(self, value: Any, place: str) -> Any:
        if type(value) in (list, tuple):
            return type(value)(self.pack(each, f"{place}[{index}]") for index, each in enumerate(value))
        if type(value) is dict:
            return self._dict(value, place)
        what, content = _down(value, place)
        return {TAG: what, "value": self.pack(content, place)}

    def _dict(self, value: dict[Any, Any], place: str) -> dict[Any, Any]:
        if TAG not in value and all(type(key) in _AS_THEY_ARE for key in value):
            return {key: self.pack(each, f"{place}/{key}") for key, each in value.items()}
        items = [
            [self.pack(key, f"{place}'s key {key!r}"), self.pack(each, f"{place}/{key}")] for key, each in value.items()
        ]
        return {TAG: "dict", "value": items}


def _down(value: Any, place: str) -> tuple[str, Any]:
    """What a value is, and what it is made of."""
    kind = type(value)
    if kind in _DOWN:
        name, made_of = _DOWN[kind]
        return name, made_of(value)
    if kind is np.ndarray or isinstance(value, np.generic):
        return _numpy_down(value, place)
    if isinstance(value, np.dtype):
        return "numpy.dtype", np.lib.format.dtype_to_descr(value)
    if kind is collections.defaultdict and (value.default_factory is None or value.default_factory in _names_of()):
        return "defaultdict", [_names_of().get(value.default_factory), [*value.items()]]
    if isinstance(value, np.random.Generator):
        return "numpy.random.Generator", value.bit_generator.state
    if not isinstance(value, type) and _is_found(kind):
        if isinstance(value, enum.Enum):
            return "enum", [kind.__module__, kind.__qualname__, value.value]
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return "namedtuple", [kind.__module__, kind.__qualname__, [*value]]
        if is_plain_dataclass(kind):
            return "dataclass", [kind.__module__, kind.__qualname__, fields_of(value)]
    raise unsavable(place, value)


def _names_of() -> dict[Any, str]:
    return {each: name for name, each in FACTORIES.items()}


def _is_found(kind: type) -> bool:
    """Whether a class can be found again by its name; one inside a function cannot."""
    try:
        return find(kind.__module__, kind.__qualname__) is kind
    except LoadError:
        return False


def _numpy_down(value: Any, place: str) -> tuple[str, Any]:
    if value.dtype.hasobject:
        if type(value) is not np.ndarray or value.dtype.names:
            raise unsavable(place, value)
        return "numpy.objects", [[*value.shape], [*value.ravel()]]
    file = io.BytesIO()
    np.save(file, value, allow_pickle=False)
    return ("numpy.ndarray" if type(value) is np.ndarray else "numpy.generic"), _raw(file.getvalue())


def _raw(content: bytes) -> _Raw:
    return _Raw(torch.from_numpy(np.frombuffer(content, np.uint8).copy()))


def _moment(value: Any) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), value.tzinfo, value.fold]


def _items(value: Any) -> list[Any]:
    return [[key, each] for key, each in value.items()]


_DOWN: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    set: ("set", list),
    frozenset: ("frozenset", list),
    bytes: ("bytes", _raw),
    bytearray: ("bytearray", bytes),
    complex: ("complex", lambda value: [value.real, value.imag]),
    range: ("range", lambda value: [value.start, value.stop, value.step]),
    slice: ("slice", lambda value: [value.start, value.stop, value.step]),
    type(...): ("ellipsis", lambda _: None),
    collections.deque: ("deque", lambda value: [[*value], value.maxlen]),
    collections.OrderedDict: ("OrderedDict", _items),
    collections.Counter: ("Counter", _items),
    types.SimpleNamespace: ("SimpleNamespace", vars),
    datetime.datetime: ("datetime", _moment),
    datetime.time: ("time", _moment),
    datetime.date: ("date", datetime.date.isoformat),
    datetime.timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    datetime.timezone: ("timezone", lambda value: [value.utcoffset(None), value.tzname(None)]),
    zoneinfo.ZoneInfo: ("ZoneInfo", lambda value: value.key),
    decimal.Decimal: ("Decimal", str),
    fractions.Fraction: ("Fraction", lambda value: [value.numerator, value.denominator]),
    uuid.UUID: ("UUID", lambda value: value.hex),
    torch.Size: ("torch.Size", list),
    torch.dtype: ("torch.dtype", lambda value: str(value).removeprefix("torch.")),
    torch.device: ("torch.device", str),
    torch.Generator: ("torch.Generator", lambda value: [value.device.type, _Raw(value.get_state())]),
    random.Random: ("random.Random", random.Random.getstate),
    np.random.RandomState: ("numpy.random.RandomState", lambda value: value.get_state()),
    **{path: (path.__name__, str) for path in PATHS},
}
