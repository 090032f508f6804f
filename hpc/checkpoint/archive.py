"""How is a file of torch.save read that anybody may have written?

By torch, with weights_only, which runs nobody's code, but believes what the file says of sizes (torch 2.6-2.13). So it
is looked through first, without being unpickled: it must be made of what torch.save itself writes, name nothing but
tensors and plain values, and every tensor's memory must be there as long as it is said to be.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import IO, Any

import torch

_ALLOWED = {
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3", "torch._utils _rebuild_parameter"),
    *("torch._utils _rebuild_sparse_tensor", "torch._utils _rebuild_qtensor", "torch.serialization _get_layout"),
    *("torch._utils _rebuild_meta_tensor_no_storage", "torch._tensor _rebuild_from_type_v2", "torch Tensor"),
    *("torch Size", "torch device", "torch.storage UntypedStorage", "collections OrderedDict", "collections Counter"),
    *("__builtin__ set", "__builtin__ complex", "_codecs encode"),
    *("torch per_tensor_affine", "torch per_channel_affine", "torch per_channel_affine_float_qparams"),
}
_STORAGE_BYTES = {
    **dict.fromkeys(("ComplexDoubleStorage",), 16),
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    **dict.fromkeys(("FloatStorage", "IntStorage", "QInt32Storage"), 4),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    **dict.fromkeys(("CharStorage", "ByteStorage", "BoolStorage", "QInt8Storage", "QUInt8Storage"), 1),
    **dict.fromkeys(("QUInt4x2Storage", "QUInt2x4Storage"), 1),
}
_ITEM_BYTES = {f"torch {name}": size for name, size in _STORAGE_BYTES.items()} | {"torch.storage UntypedStorage": 1}
_PUSHES = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE"),
    *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"),
}
_TAKES = {
    *("TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "REDUCE", "NEWOBJ", "BUILD"),
    *("PROTO", "STOP"),
}
_END_BYTES = 22
_LEAST_VALUES = 1000


def read_archive(
    file: IO[bytes], classes: Mapping[str, Callable[..., Any]] | None = None, map_location: Any = "cpu"
) -> Any:
    """The content of a file of torch.save; nobody's code is run by reading it.

    Args:
        file: Can be sought in.
        classes: Besides tensors and plain values, by module and name as a pickle has them; what they do when they are
            called is trusted.
        map_location: See torch.load.

    Raises:
        ValueError: It holds something else, or is not what it says.
    """
    allowed = classes or {}
    try:
        pickled = scan(file, [*allowed])
        file.seek(0)
        named: list[Any] = [
            (each, name.replace("__builtin__", "builtins").replace(" ", ".")) for name, each in allowed.items()
        ]
        with torch.serialization.safe_globals(named):
            content = torch.load(file, map_location=map_location, weights_only=True)
        _check_content(content, max(_LEAST_VALUES, len(pickled)))
    except ValueError:
        raise
    except Exception as error:  # torch has many words for it, and the reason is not in the first of them
        raise ValueError(_reason(error)) from error
    return content


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "WeightsUnpickler error" in line]
    return next(iter(telling or lines), type(error).__name__).rstrip(".")


def scan(file: IO[bytes], classes: Sequence[str] = ()) -> bytes:
    """Look through a file of torch.save without unpickling it; returns the pickle in it.

    Args:
        file: Can be sought in.
        classes: `module name` of what may be in it besides tensors and plain values.

    Raises:
        ValueError: It is no such file, or holds something else.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            records = _records(archive, file)
            pickled = archive.read(next(name for name in records if name.endswith("/data.pkl")))
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"it is no file of torch.save ({_reason(error)})") from error
    root = next(iter(records)).split("/", 1)[0]
    storages = {name.removeprefix(f"{root}/data/"): size for name, size in records.items()}
    _check_pickle(pickled, storages, {*_ALLOWED, *classes})
    return pickled


def _records(archive: zipfile.ZipFile, file: IO[bytes]) -> dict[str, int]:
    """Name -> size of what is stored, uncompressed and in one folder; all of it must be in the file."""
    size = file.seek(0, 2)
    file.seek(size - _END_BYTES)
    records = {each.filename: each.file_size for each in archive.infolist()}
    infos = archive.infolist()
    stored = all(each.compress_type == zipfile.ZIP_STORED and each.compress_size == each.file_size for each in infos)
    readable = not any(each.flag_bits & 1 for each in infos)
    roots = {name.split("/", 1)[0] for name in records}
    if not (stored and readable and len(records) == len(infos) and sum(records.values()) <= size):
        raise ValueError("its parts are not stored as torch.save stores them")
    if len(roots) != 1 or file.read(4) != b"PK\x05\x06" or archive.comment:
        raise ValueError("it is put together in another way than by torch.save")
    if sum(name.endswith("/data.pkl") for name in records) != 1 or f"{next(iter(roots))}/data.pkl" not in records:
        raise ValueError("it holds no data.pkl, or several")
    return records


def _check_pickle(pickled: bytes, storages: Mapping[str, int], allowed: set[str]) -> None:
    """Follow what is pushed one after the other, which is how torch.save names the memory of a tensor."""
    memo: dict[int, Any] = {}
    pushed: list[Any] | None = []  # since the last mark; None when something was taken away again
    operations: Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]] = pickletools.genops(pickled)
    for opcode, argument, _ in operations:
        name = opcode.name
        if name in _PUSHES:
            pushed = _with(pushed, argument)
        elif name == "GLOBAL":
            _check_global(argument, allowed)
            pushed = _with(pushed, argument)
        elif name in ("BINGET", "LONG_BINGET"):
            pushed = _with(pushed, memo.get(argument))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = pushed[-1] if pushed else None
        elif name == "MARK":
            pushed = []
        elif name == "TUPLE":
            pushed = None if pushed is None else [tuple(pushed)]
        elif name == "BINPERSID":
            _check_storage(pushed[-1] if pushed else None, storages)
            pushed = None
        elif name in _TAKES:
            pushed = None
        else:
            raise ValueError(f"its pickle has {name}, which torch.save does not write")


def _with(pushed: list[Any] | None, value: Any) -> list[Any] | None:
    return None if pushed is None else [*pushed[-5:], value]


def _check_global(name: str, allowed: set[str]) -> None:
    module, _, attribute = name.partition(" ")
    is_type = module == "torch" and (name in _ITEM_BYTES or isinstance(vars(torch).get(attribute), torch.dtype))
    if name not in allowed and not is_type:
        raise ValueError(f"it holds {name.replace(' ', '.')}, which is no tensor and no plain value")


def _check_storage(identity: Any, storages: Mapping[str, int]) -> None:
    if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
        raise ValueError("it names the memory of a tensor in another way than torch.save")
    _, kind, key, _, count = identity
    size = storages.get(key) if type(key) is str else None
    if type(count) is not int or kind not in _ITEM_BYTES or size != count * _ITEM_BYTES[kind]:
        raise ValueError("the memory of a tensor is not as long as it says")


def _check_content(content: Any, most: int) -> None:
    """Refuse what holds itself, what unfolds to more than the file can say, and tensors larger than their memory."""
    left, count = [content], 0
    while left:
        each = left.pop()
        if isinstance(each, Mapping):
            inside: Collection[Any] = [*each.keys(), *each.values()] if len(each) <= most else range(most + 1)
        else:
            inside = each if isinstance(each, (list, tuple, set, frozenset)) else ()
        count += len(inside)
        if count > most:
            raise ValueError("it holds itself, or the same again and again")
        left += inside
        if isinstance(each, torch.Tensor):
            _check_tensor(each)


def _check_tensor(tensor: torch.Tensor) -> None:
    if tensor.layout is torch.sparse_coo:
        torch.sparse_coo_tensor(tensor._indices(), tensor._values(), tensor.shape, check_invariants=True)
    elif tensor.layout is not torch.strided:
        by_row = tensor.layout in (torch.sparse_csr, torch.sparse_bsr)
        outer, inner = (
            (tensor.crow_indices, tensor.col_indices) if by_row else (tensor.ccol_indices, tensor.row_indices)
        )
        torch.sparse_compressed_tensor(
            outer(), inner(), tensor.values(), tensor.shape, layout=tensor.layout, check_invariants=True
        )
    elif not tensor.is_meta and math.prod(tensor.shape) * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError("a tensor is larger than its memory")
