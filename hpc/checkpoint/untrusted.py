"""Can a manifest be followed that anybody may have written?

It is read with bounds, and checked as a whole, before anything that it names is opened or made room for. Whatever
passes has plain file names, known types, and tensors that are tiled by pieces which lie in the files, each in bytes
of its own, so that no more memory is asked for than the files have bytes. Needs no torch.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xxhash

from hpc.checkpoint.files import FileEntry
from hpc.checkpoint.manifest import (
    FORMAT,
    ITEM_BYTES,
    MANIFEST_FILE,
    OLDEST_FORMAT,
    OPENING,
    TRAINER_FILE,
    Manifest,
    Piece,
    TensorEntry,
    Written,
)
from hpc.checkpoint.reading import DamagedError, read_bounded, unreadable

MOST_BYTES = 256 << 20
"""Of a manifest: about two million pieces."""
_MOST = 2**63 - 1
_MOST_RANKS = 1 << 24
_MOST_DIMENSIONS = 64
_LONGEST_NAME = 1024
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=@,-]*(/[A-Za-z0-9_][A-Za-z0-9._+=@,-]*)*")
_CHECKSUM = re.compile(r"[0-9a-f]{32}")
_STEP_NAME = re.compile(r"step_(\d{8,18})")
_PARTS = {"format", "step", "token", "saved_at", "metrics", "files", "tensors", "aliases"}


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a checkpoint.

    Args:
        directory: Of the checkpoint; one that is named after a step must be of that step.

    Raises:
        DamagedError: It is not what was written, or cannot be followed.
    """
    try:
        manifest = parsed(read_bounded(directory, MANIFEST_FILE, MOST_BYTES))
    except OSError as error:
        raise DamagedError(unreadable(MANIFEST_FILE, error)) from error
    except ValueError as error:
        raise DamagedError(f"{MANIFEST_FILE} cannot be read ({error})") from error
    named = _STEP_NAME.fullmatch(directory.name)
    if named and int(named[1]) != manifest.step:
        raise DamagedError(f"{MANIFEST_FILE} is of step {manifest.step}")
    return manifest


def parsed(data: bytes) -> Manifest:
    """What a manifest.json says.

    Raises:
        ValueError: It is not what was written, or cannot be followed.
    """
    content = data[len(OPENING % bytes(32)) : -2]
    if data != OPENING % xxhash.xxh3_128_hexdigest(content).encode() + content + b"}\n":
        raise ValueError("it does not have the checksum it was written with")
    try:
        return _manifest(json.loads(content.decode(), object_pairs_hook=_unique))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it says something twice")
    return found


def _manifest(fields: Any) -> Manifest:
    written_format = _object(fields, "it").get("format")
    if type(written_format) is not int or not OLDEST_FORMAT <= written_format <= FORMAT:
        raise ValueError(f"only formats {OLDEST_FORMAT} to {FORMAT} are known here, and it has {written_format}")
    _check_keys(fields, _PARTS, "it")
    saved_at = fields["saved_at"]
    if type(saved_at) not in (int, float) or not 0 <= saved_at <= _MOST:
        raise ValueError("its saved_at is no time")
    files = {_file_name(name): _file_entry(name, each) for name, each in _object(fields["files"], "files").items()}
    if TRAINER_FILE not in files:
        raise ValueError(f"it names no {TRAINER_FILE}")
    tensors = {name: _tensor(name, each, files) for name, each in _object(fields["tensors"], "tensors").items()}
    _check_apart(tensors)
    return Manifest(
        _integer(fields["step"], "step"),
        _text(fields["token"], "token"),
        saved_at,
        {name: _number(name, value) for name, value in _object(fields["metrics"], "metrics").items()},
        Written(files, tensors, _aliases(fields["aliases"], tensors)),
        written_format,
    )


def _file_entry(name: str, fields: Any) -> FileEntry:
    _check_keys(fields, {"bytes", "xxh3_128", "rank"}, name)
    if not _CHECKSUM.fullmatch(_text(fields["xxh3_128"], name)):
        raise ValueError(f"the checksum of {name} is none")
    size, rank = _integer(fields["bytes"], f"bytes of {name}"), _integer(fields["rank"], f"rank of {name}", _MOST_RANKS)
    return FileEntry(size, fields["xxh3_128"], rank)


def _tensor(name: str, fields: Any, files: Mapping[str, FileEntry]) -> TensorEntry:
    _check_keys(fields, {"dtype", "shape", "pieces"}, name)
    dtype, shape = fields["dtype"], _sizes(fields["shape"], name)
    if type(dtype) is not str or dtype not in ITEM_BYTES:
        raise ValueError(f"{name} has a type that is not known")
    if math.prod(size or 1 for size in shape) * ITEM_BYTES[dtype] > _MOST:
        raise ValueError(f"{name} has more elements than there can be")
    if type(fields["pieces"]) is not list:
        raise ValueError(f"the pieces of {name} are no list")
    pieces = tuple([_piece(name, each, len(shape), ITEM_BYTES[dtype], files) for each in fields["pieces"]])
    if not _tile(pieces, shape):
        raise ValueError(f"the pieces of {name} leave holes or overlap")
    return TensorEntry(dtype, shape, pieces)


def _piece(name: str, fields: Any, dimensions: int, item_bytes: int, files: Mapping[str, FileEntry]) -> Piece:
    _check_keys(fields, {"file", "begin", "offsets", "shape"}, name)
    offsets, shape = _sizes(fields["offsets"], name), _sizes(fields["shape"], name)
    if not len(offsets) == len(shape) == dimensions:
        raise ValueError(f"a piece of {name} has not as many dimensions as the whole")
    file, begin = fields["file"], _integer(fields["begin"], f"begin of {name}")
    if type(file) is not str or file not in files:
        raise ValueError(f"a piece of {name} lies in a file that is not listed")
    if begin + math.prod(shape) * item_bytes > files[file].bytes:
        raise ValueError(f"a piece of {name} lies beyond the end of {file}")
    return Piece(file, begin, offsets, shape)


def _tile(pieces: Sequence[Piece], shape: tuple[int, ...]) -> bool:
    """Whether pieces are the whole of a tensor, and no two overlap."""
    if len(pieces) == 1:
        return pieces[0].shape == shape and not any(pieces[0].offsets)
    return not any(0 in piece.shape for piece in pieces) and _are_slabs(pieces, shape, 0)


def _are_slabs(pieces: Sequence[Piece], shape: tuple[int, ...], dimension: int) -> bool:
    """Whether pieces are cut along this dimension first, then each slab along the next: shards of a mesh are."""
    if dimension == len(shape):
        return len(pieces) == 1
    slabs: dict[tuple[int, int], list[Piece]] = {}
    for piece in pieces:
        slabs.setdefault((piece.offsets[dimension], piece.shape[dimension]), []).append(piece)
    end = 0
    for begin, length in sorted(slabs):
        if begin != end or not _are_slabs(slabs[begin, length], shape, dimension + 1):
            return False
        end += length
    return end == shape[dimension]


def _check_apart(tensors: Mapping[str, TensorEntry]) -> None:
    """Refuse bytes that are claimed twice: memory for all tensors would be more than the files hold."""
    claims: dict[str, list[tuple[int, int]]] = {}
    for entry in tensors.values():
        for piece in entry.pieces:
            end = piece.begin + math.prod(piece.shape) * ITEM_BYTES[entry.dtype]
            if end > piece.begin:
                claims.setdefault(piece.file, []).append((piece.begin, end))
    for file, claimed in claims.items():
        claimed.sort()
        if any(after[0] < before[1] for before, after in itertools.pairwise(claimed)):
            raise ValueError(f"two tensors lie in the same bytes of {file}")


def _aliases(fields: Any, tensors: Mapping[str, TensorEntry]) -> dict[str, str]:
    for alias, stored in _object(fields, "aliases").items():
        if alias in tensors or type(stored) is not str or stored not in tensors:
            raise ValueError(f"{alias} is another name of a tensor that is not there")
    return dict(fields)


def _file_name(name: str) -> str:
    if not _FILE_NAME.fullmatch(name) or len(name) > _LONGEST_NAME or name == MANIFEST_FILE:
        raise ValueError(f"{name!r} is no name of a file that belongs to a checkpoint")
    return name


def _object(fields: Any, name: str) -> dict[str, Any]:
    if type(fields) is not dict:
        raise ValueError(f"{name} must be an object, but is a {type(fields).__name__}")
    return fields


def _check_keys(fields: Any, keys: set[str], name: str) -> None:
    if _object(fields, name).keys() != keys:
        raise ValueError(f"{name} must have {', '.join(sorted(keys))}, and nothing else")


def _sizes(value: Any, name: str) -> tuple[int, ...]:
    if type(value) is not list or len(value) > _MOST_DIMENSIONS:
        raise ValueError(f"a shape of {name} is none")
    for each in value:
        if type(each) is not int or not 0 <= each <= _MOST:
            raise ValueError(f"a shape of {name} is none")
    return tuple(value)


def _integer(value: Any, name: str, most: int = _MOST) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name} must be a whole number from 0 to {most}")
    return value


def _number(name: str, value: Any) -> float:
    """A metric; it may be infinite, or not a number."""
    if type(value) is not float and not (type(value) is int and -_MOST <= value <= _MOST):
        raise ValueError(f"the metric {name} is no number")
    return float(value)


def _text(value: Any, name: str) -> str:
    if type(value) is not str or len(value) > _LONGEST_NAME:
        raise ValueError(f"{name} must be a text, and a short one")
    return value
