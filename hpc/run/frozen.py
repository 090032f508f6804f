"""How is a config written as one line of JSON, so that it comes back as it was?

JSON's mappings have texts for keys and its values are few. Whatever is more is written as a mapping with one key that
begins with `hpc:`. NaN and infinity are written as Python's json writes them: NaN, Infinity.
"""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from pathlib import Path, PurePath
from typing import Any

from hpc.errors import ConfigurationError

TAG = "hpc:"


@dataclass(frozen=True)
class Hidden:
    """Stands in the place of a value that others must not read; see `hpc.run.vault`.

    Args:
        name: Of the value.
    """

    name: str


def dumps(value: Any) -> str:
    """One line of JSON.

    Args:
        value: Mappings, sequences, numbers, texts, bytes, paths and members of enumerations.

    Raises:
        ConfigurationError: Something in it is of another kind.
    """
    return json.dumps(_encoded(value, ""))


def loads(text: str) -> Any:
    """What `dumps` was given.

    Raises:
        ValueError: The text is not what it wrote.
    """
    return json.loads(text, object_hook=_decoded)


def _encoded(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, str)) or type(value) in (int, float):
        return value
    if isinstance(value, Mapping):
        return _encoded_mapping(value, where)
    if isinstance(value, (list, tuple)):
        return [_encoded(each, f"{where}[{number}]") for number, each in enumerate(value)]
    if isinstance(value, bytes):
        return {f"{TAG}bytes": base64.b64encode(value).decode()}
    if isinstance(value, Hidden):
        return {f"{TAG}hidden": value.name}
    if isinstance(value, PurePath):
        return {f"{TAG}path": str(value)}
    if isinstance(value, Enum) and "<locals>" not in type(value).__qualname__:
        return {f"{TAG}member": [type(value).__module__, type(value).__qualname__, value.name]}
    raise ConfigurationError(
        f"{where} must be a number, a text, true, false, null, or a mapping or list of these, "
        f"but is a {type(value).__name__}."
    )


def _encoded_mapping(value: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """As it is where all keys are texts that cannot be mistaken for a tag, else as pairs in their order."""
    pairs = [(key, _encoded(each, f"{where}.{key}" if where else str(key))) for key, each in value.items()]
    if all(isinstance(key, str) and not isinstance(key, Enum) and not key.startswith(TAG) for key, _ in pairs):
        return dict(pairs)
    return {f"{TAG}mapping": [[_encoded(key, where), each] for key, each in pairs]}


def _decoded(mapping: dict[str, Any]) -> Any:
    (key, value), *more = list(mapping.items()) or [("", None)]
    if more or not key.startswith(TAG):
        return mapping
    if key not in DECODERS:
        raise ValueError(f"{key} is not known to this version of hpc")
    return DECODERS[key](value)


def _member(parts: list[str]) -> Any:
    module, name, member = parts
    return attrgetter(name)(importlib.import_module(module))[member]


DECODERS: dict[str, Callable[[Any], Any]] = {
    f"{TAG}mapping": dict,
    f"{TAG}bytes": base64.b64decode,
    f"{TAG}path": Path,
    f"{TAG}hidden": Hidden,
    f"{TAG}member": _member,
}
