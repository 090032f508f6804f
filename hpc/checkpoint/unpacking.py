"""How does a value come back from a file that anybody may have written?

As what it was, equal in value and type, or not at all: no code of the file runs, nothing is imported because a file
says so, and nothing takes more memory than the file has bytes.
"""

from __future__ import annotations

import ast
import collections
import datetime
import decimal
import enum
import fractions
import io
import math
import random
import types
import uuid
import zoneinfo
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from hpc.checkpoint.plain import FACTORIES, PATHS, TAG, Fetch, dressed, find, is_plain_dataclass, on_device
from hpc.errors import HpcError

_LONGEST_HEADER = 10_000
"""Of an array; numpy's own limit where the file is not trusted (1.24-2.x)."""
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_PHILOX_BUFFER = 4


def unpacked(plain: Any, fetch: Fetch | None = None) -> Any:
    """The value again, equal to what was packed, and of the same types.

    Args:
        plain: From a file.
        fetch: Finds tensors that were kept elsewhere.

    Raises:
        LoadError: A class of the value is not there any more.
        ValueError: The file holds something that nobody has packed.
    """
    try:
        return _up(plain, fetch)
    except (HpcError, ValueError):
        raise
    except Exception as error:  # whatever classes of others say to values that are none of theirs
        raise ValueError(f"it holds a value that hpc has not written ({type(error).__name__}: {error})") from error


def _up(plain: Any, fetch: Fetch | None) -> Any:
    if type(plain) in (list, tuple):
        return type(plain)(_up(each, fetch) for each in plain)
    if type(plain) is not dict:
        return plain
    if TAG not in plain:
        return {key: _up(each, fetch) for key, each in plain.items()}
    what = plain[TAG]
    if what == "tensor":
        if fetch is not None and "name" in plain:
            return dressed(fetch(plain), plain)
        return dressed(_taken(plain["value"], torch.Tensor).to(on_device(plain["device"])), plain)
    kind, make = _UP[what]
    return make(_taken(_up(plain["value"], fetch), kind))


def _taken(content: Any, kind: Any) -> Any:
    """What a value is made of, if it is of the kind that packing writes: a range in the place of a list never ends."""
    if not (isinstance(content, torch.Tensor) if kind is torch.Tensor else type(content) in kind):
        raise ValueError(f"it holds a {type(content).__name__} where hpc writes something else")
    return content


def _bytes_up(content: torch.Tensor) -> bytes:
    return content.numpy().tobytes()


def _numpy_up(content: torch.Tensor) -> Any:
    data = _bytes_up(content)
    _check_array(data)
    return np.load(io.BytesIO(data), allow_pickle=False)


def _check_array(data: bytes) -> None:
    """Refuse an array that is larger than its bytes, for which numpy makes room before it reads them (2.x)."""
    file = io.BytesIO(data)
    length = int.from_bytes(file.read(2 if np.lib.format.read_magic(file) == (1, 0) else 4), "little")
    if length > _LONGEST_HEADER:
        raise ValueError("it holds an array with too long a header")
    header = ast.literal_eval(file.read(length).decode("latin-1"))
    item_bytes = np.lib.format.descr_to_dtype(header["descr"]).itemsize
    if math.prod(header["shape"]) * item_bytes != len(data) - file.tell():
        raise ValueError("it holds an array that is larger or smaller than its bytes")


def _objects_up(content: list[Any]) -> Any:
    shape, values = (_taken(each, _LIST) for each in content)
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value
    return array.reshape(shape)


def _generator_up(state: dict[str, Any]) -> Any:
    name = state["bit_generator"]
    if name not in _BIT_GENERATORS:
        raise ValueError(f"numpy has no bit generator {name}")
    if name == "MT19937":
        check_twister(state["state"]["key"], state["state"]["pos"])
    if name == "Philox" and not 0 <= _taken(state["buffer_pos"], (int,)) <= _PHILOX_BUFFER:
        raise ValueError("it holds a state of Philox that there is not")
    generator = getattr(np.random, name)()
    generator.state = state
    return np.random.Generator(generator)


def check_twister(keys: Any, position: Any) -> None:
    """Refuse a state of numpy's Mersenne Twister that would make it read beyond its memory (numpy 1.26-2.x).

    Raises:
        ValueError: It is one.
    """
    if not isinstance(keys, np.ndarray) or keys.shape != (624,) or not 0 <= _taken(position, (int,)) <= len(keys):
        raise ValueError("it holds a state of numpy's random numbers that there is not")


def _random_state_up(state: Any) -> Any:
    name, keys, position, *_ = state
    check_twister(keys, position)
    found = np.random.RandomState()
    found.set_state(state)
    return found if name == "MT19937" else None


def random_up(state: Any) -> random.Random:
    """Python's generator of random numbers in a state that `getstate` has told.

    Raises:
        Exception: It is no such state.
    """
    _, inner, _ = _taken(state, (tuple,))
    _taken(inner, (tuple,))
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
    return _subclass(find(module, name), enum.Enum)(value)


def _namedtuple_up(content: list[Any]) -> Any:
    module, name, values = content
    kind = _subclass(find(module, name), tuple)
    if len(kind._fields) != len(_taken(values, _LIST)):
        raise ValueError(f"{name} has other fields")
    return tuple.__new__(kind, values)


def _dataclass_up(content: list[Any]) -> Any:
    module, name, attributes = content
    kind = find(module, name)
    if not is_plain_dataclass(kind):
        raise ValueError(f"{name} is no dataclass")
    found = object.__new__(kind)
    for attribute, value in _taken(attributes, (dict,)).items():
        object.__setattr__(found, attribute, value)
    return found


def _subclass(kind: Any, base: type) -> Any:
    if not issubclass(kind, base):
        raise ValueError(f"{kind.__qualname__} is no {base.__name__}")
    return kind


def _datetime_up(content: list[Any]) -> Any:
    text, zone, fold = content
    return datetime.datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def _time_up(content: list[Any]) -> Any:
    text, zone, fold = content
    return datetime.time.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def _dtype_up(name: str) -> torch.dtype:
    found = vars(torch)[name]
    if not isinstance(found, torch.dtype):
        raise TypeError(f"torch.{name} is no dtype")
    return found


def _pairs(content: Iterable[Any]) -> Any:
    return ((key, each) for key, each in content)


_LIST, _TEXT = (list,), (str,)
_UP: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "set": (_LIST, set),
    "frozenset": (_LIST, frozenset),
    "bytes": (torch.Tensor, _bytes_up),
    "bytearray": ((bytes,), bytearray),
    "complex": (_LIST, lambda value: complex(*value)),
    "range": (_LIST, lambda value: range(*value)),
    "slice": (_LIST, lambda value: slice(*value)),
    "ellipsis": ((type(None),), lambda _: ...),
    "deque": (_LIST, lambda value: collections.deque(_taken(value[0], _LIST), value[1])),
    "OrderedDict": (_LIST, lambda value: collections.OrderedDict(_pairs(value))),
    "Counter": (_LIST, lambda value: collections.Counter(dict(_pairs(value)))),
    "SimpleNamespace": ((dict,), lambda value: types.SimpleNamespace(**value)),
    "datetime": (_LIST, _datetime_up),
    "time": (_LIST, _time_up),
    "date": (_TEXT, datetime.date.fromisoformat),
    "timedelta": (_LIST, lambda value: datetime.timedelta(*value)),
    "timezone": (
        _LIST,
        lambda value: datetime.timezone.utc if not value[0] and value[1] == "UTC" else datetime.timezone(*value),
    ),
    "ZoneInfo": (_TEXT, zoneinfo.ZoneInfo),
    "Decimal": (_TEXT, decimal.Decimal),
    "Fraction": (_LIST, lambda value: fractions.Fraction(*value)),
    "UUID": (_TEXT, uuid.UUID),
    "torch.Size": (_LIST, torch.Size),
    "torch.dtype": (_TEXT, _dtype_up),
    "torch.device": (_TEXT, torch.device),
    "torch.Generator": (_LIST, _torch_generator_up),
    "random.Random": ((tuple,), random_up),
    "numpy.random.RandomState": ((tuple,), _random_state_up),
    **{path.__name__: (_TEXT, path) for path in PATHS},
    "int": (_TEXT, lambda content: int(content, 16)),
    "dict": (_LIST, lambda content: dict(_pairs(content))),
    "defaultdict": (
        _LIST,
        lambda value: collections.defaultdict(FACTORIES.get(value[0] or ""), _taken(value[1], _LIST)),
    ),
    "numpy.ndarray": (torch.Tensor, _numpy_up),
    "numpy.generic": (torch.Tensor, lambda content: _numpy_up(content)[()]),
    "numpy.objects": (_LIST, _objects_up),
    "numpy.dtype": ((str, list, tuple), np.lib.format.descr_to_dtype),
    "numpy.random.Generator": ((dict,), _generator_up),
    "enum": (_LIST, _enum_up),
    "namedtuple": (_LIST, _namedtuple_up),
    "dataclass": (_LIST, _dataclass_up),
}
