"""How is a value that is not a tensor stored, in a file that can be read without running code from it?

As what `torch.load(weights_only=True)` takes: None, numbers, texts, tensors, and lists, tuples and dicts of
these. Everything else becomes a dict with a TAG that says what it was, and comes back as that, type and all. What has
no such form is refused with the place where it stands, before anything is written.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import io
import pathlib
import random
import sys
import types
import uuid
import zoneinfo
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from hpc.errors import ConfigurationError, LoadError

TAG = "hpc:type"
"""The key that tells a converted value from a dict; a dict that has such a key itself is converted too."""

Keep = Callable[[str, torch.Tensor], Any]
"""Place and tensor -> what stands there in the file, in types that need no conversion."""
Fetch = Callable[[dict[str, Any]], torch.Tensor]
"""What `Keep` has put into the file -> the tensor."""

_AS_THEY_ARE = (type(None), bool, int, float, str)
_LONG_BITS = 1024
"""A whole number of more bits is written as text: torch's restricted reader takes 255 bytes (torch 2.6-2.13)."""
_KEYS = (type(None), bool, int, float, str)
_FACTORIES: dict[str, Any] = {each.__name__: each for each in (list, dict, set, tuple, int, float, str, bool, bytes)}
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")


def packed(value: Any, place: str, keep: Keep | None = None) -> Any:
    """A value as it lies in the file; nothing of it is shared with the value.

    Args:
        value: Anything.
        place: What the value is called in a sentence.
        keep: What is done with tensors; without it, copies of them lie in the file.

    Raises:
        ConfigurationError: A part of it cannot be saved.
    """
    return _Packing(keep or copied).pack(value, place)


def unpacked(plain: Any, fetch: Fetch | None = None) -> Any:
    """The value again, equal to what was packed, and of the same types.

    Args:
        plain: From a file.
        fetch: Finds tensors that were kept elsewhere.

    Raises:
        LoadError: A class of the value is not there any more.
        Exception: The file holds something that nobody has packed.
    """
    if type(plain) in (list, tuple):
        return type(plain)(unpacked(each, fetch) for each in plain)
    if type(plain) is not dict:
        return plain
    if TAG not in plain:
        return {key: unpacked(each, fetch) for key, each in plain.items()}
    what = plain[TAG]
    if what == "tensor":
        if fetch is not None and "name" in plain:
            return dressed(fetch(plain), plain)
        return dressed(plain["value"].to(on_device(plain["device"])), plain)
    content = unpacked(plain["value"], fetch)
    return _UP[what](content)


def tensor_tag(tensor: torch.Tensor, **fields: Any) -> dict[str, Any]:
    """What stands for a tensor: where it lived, and whatever else is needed to find it again."""
    is_leaf = tensor.requires_grad and tensor.is_leaf
    kind = "parameter" if isinstance(tensor, torch.nn.Parameter) else "tensor"
    return {TAG: "tensor", "device": tensor.device.type, "kind": kind, "requires_grad": is_leaf, **fields}


def dressed(tensor: torch.Tensor, tag: dict[str, Any]) -> torch.Tensor:
    """A tensor with what its tag says of it."""
    if tag.get("kind") == "parameter":
        return torch.nn.Parameter(tensor, requires_grad=tag["requires_grad"])
    return tensor.requires_grad_() if tag.get("requires_grad") else tensor


def on_device(kind: str) -> torch.device:
    """The device of this kind that this rank uses; the CPU where there is none."""
    backend = getattr(torch, kind, None)
    is_here = kind != "cpu" and backend is not None and hasattr(backend, "is_available") and backend.is_available()
    return torch.device(kind if is_here else "cpu")


def copied(place: str, tensor: torch.Tensor) -> dict[str, Any]:
    """A tensor that lies in the file itself, as training cannot change it any more."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
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
        if TAG not in value and all(type(key) in _KEYS for key in value):
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
        if _is_plain_dataclass(kind):
            return "dataclass", [kind.__module__, kind.__qualname__, _attributes(value)]
    raise unsavable(place, value)


def _is_plain_dataclass(kind: Any) -> bool:
    """Whether it is a dataclass whose objects are nothing besides, as those that are also dicts are."""
    makes: Any = kind.__new__
    return dataclasses.is_dataclass(kind) and makes is object.__new__


def _names_of() -> dict[Any, str]:
    return {each: name for name, each in _FACTORIES.items()}


def _attributes(value: Any) -> dict[str, Any]:
    """Of a dataclass: its fields, wherever it keeps them, and what was hung on it besides."""
    fields = {field.name for field in dataclasses.fields(value)}
    found = {name: getattr(value, name) for name in sorted(fields) if hasattr(value, name)}
    return {**found, **getattr(value, "__dict__", {})}


def _is_found(kind: type) -> bool:
    """Whether a class can be found again by its name; one inside a function cannot."""
    try:
        return _find(kind.__module__, kind.__qualname__) is kind
    except LoadError:
        return False


def _find(module: str, name: str) -> Any:
    """A class that is here already: nothing is imported because a file says so."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise LoadError(
            f"The checkpoint holds a {module}.{name}, but there is no such class here: give it back its name, or "
            "import it before training goes on."
        )
    return found


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


def _bytes_up(content: torch.Tensor) -> bytes:
    return content.numpy().tobytes()


def _numpy_up(content: torch.Tensor) -> Any:
    return np.load(io.BytesIO(_bytes_up(content)), allow_pickle=False)


def _objects_up(content: list[Any]) -> Any:
    shape, values = content
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value
    return array.reshape(shape)


def _generator_up(state: dict[str, Any]) -> Any:
    name = state["bit_generator"]
    if name not in _BIT_GENERATORS:
        raise ValueError(f"numpy has no bit generator {name}")
    generator = getattr(np.random, name)()
    generator.state = state
    return np.random.Generator(generator)


def _random_state_up(state: Any) -> Any:
    found = np.random.RandomState()
    found.set_state(state)
    return found


def _random_up(state: Any) -> random.Random:
    found = random.Random()
    found.setstate(state)
    return found


def _torch_generator_up(content: list[Any]) -> torch.Generator:
    device, state = content
    found = torch.Generator(on_device(device))
    found.set_state(state)
    return found


def _enum_up(content: list[Any]) -> Any:
    module, name, value = content
    return _checked(_find(module, name), enum.Enum)(value)


def _namedtuple_up(content: list[Any]) -> Any:
    module, name, values = content
    return tuple.__new__(_checked(_find(module, name), tuple), values)


def _dataclass_up(content: list[Any]) -> Any:
    module, name, attributes = content
    kind = _find(module, name)
    if not _is_plain_dataclass(kind):
        raise ValueError(f"{name} is no dataclass")
    found = object.__new__(kind)
    for attribute, value in attributes.items():
        object.__setattr__(found, attribute, value)
    return found


def _checked(kind: Any, base: type) -> Any:
    if not issubclass(kind, base):
        raise ValueError(f"{kind.__qualname__} is no {base.__name__}")
    return kind


def _datetime_up(content: list[Any]) -> Any:
    text, zone, fold = content
    return datetime.datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def _time_up(content: list[Any]) -> Any:
    text, zone, fold = content
    return datetime.time.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def _moment(value: Any) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), value.tzinfo, value.fold]


def _dtype_up(name: str) -> torch.dtype:
    found = getattr(torch, name)
    if not isinstance(found, torch.dtype):
        raise TypeError(f"torch.{name} is no dtype")
    return found


def _items(value: Any) -> list[Any]:
    return [[key, each] for key, each in value.items()]


def _pairs(content: Iterable[Any]) -> Any:
    return ((key, each) for key, each in content)


_PATHS = (pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path()))

_TABLE: tuple[tuple[type, str, Callable[[Any], Any], Callable[[Any], Any]], ...] = (
    (set, "set", list, set),
    (frozenset, "frozenset", list, frozenset),
    (bytes, "bytes", _raw, _bytes_up),
    (bytearray, "bytearray", bytes, bytearray),
    (complex, "complex", lambda value: [value.real, value.imag], lambda value: complex(*value)),
    (range, "range", lambda value: [value.start, value.stop, value.step], lambda value: range(*value)),
    (slice, "slice", lambda value: [value.start, value.stop, value.step], lambda value: slice(*value)),
    (type(...), "ellipsis", lambda _: None, lambda _: ...),
    (collections.deque, "deque", lambda value: [[*value], value.maxlen], lambda value: collections.deque(*value)),
    (
        collections.OrderedDict,
        "OrderedDict",
        _items,
        lambda value: collections.OrderedDict(_pairs(value)),
    ),
    (collections.Counter, "Counter", _items, lambda value: collections.Counter(dict(_pairs(value)))),
    (types.SimpleNamespace, "SimpleNamespace", vars, lambda value: types.SimpleNamespace(**value)),
    (datetime.datetime, "datetime", _moment, _datetime_up),
    (datetime.time, "time", _moment, _time_up),
    (datetime.date, "date", datetime.date.isoformat, datetime.date.fromisoformat),
    (
        datetime.timedelta,
        "timedelta",
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda value: datetime.timedelta(*value),
    ),
    (
        datetime.timezone,
        "timezone",
        lambda value: [value.utcoffset(None), value.tzname(None)],
        lambda value: datetime.timezone.utc if not value[0] and value[1] == "UTC" else datetime.timezone(*value),
    ),
    (zoneinfo.ZoneInfo, "ZoneInfo", lambda value: value.key, zoneinfo.ZoneInfo),
    (decimal.Decimal, "Decimal", str, decimal.Decimal),
    (
        fractions.Fraction,
        "Fraction",
        lambda value: [value.numerator, value.denominator],
        lambda value: fractions.Fraction(*value),
    ),
    (uuid.UUID, "UUID", lambda value: value.hex, uuid.UUID),
    (torch.Size, "torch.Size", list, torch.Size),
    (torch.dtype, "torch.dtype", lambda value: str(value).removeprefix("torch."), _dtype_up),
    (torch.device, "torch.device", str, torch.device),
    (
        torch.Generator,
        "torch.Generator",
        lambda value: [value.device.type, _Raw(value.get_state())],
        _torch_generator_up,
    ),
    (random.Random, "random.Random", random.Random.getstate, _random_up),
    (np.random.RandomState, "numpy.random.RandomState", lambda value: value.get_state(), _random_state_up),
    *((path, path.__name__, str, path) for path in _PATHS),
)
_DOWN = {kind: (name, down) for kind, name, down, _ in _TABLE}
_UP: dict[str, Callable[[Any], Any]] = {
    **{name: up for _, name, _, up in _TABLE},
    "int": lambda content: int(content, 16),
    "dict": lambda content: dict(_pairs(content)),
    "defaultdict": lambda content: collections.defaultdict(_FACTORIES.get(content[0] or ""), content[1]),
    "numpy.ndarray": _numpy_up,
    "numpy.generic": lambda content: _numpy_up(content)[()],
    "numpy.objects": _objects_up,
    "numpy.dtype": np.lib.format.descr_to_dtype,
    "numpy.random.Generator": _generator_up,
    "enum": _enum_up,
    "namedtuple": _namedtuple_up,
    "dataclass": _dataclass_up,
}
