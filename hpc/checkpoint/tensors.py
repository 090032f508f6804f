"""How do tensors lie in a file? As safetensors has it: eight bytes of header length, a JSON header, the raw bytes.

https://huggingface.co/docs/safetensors describes it. Any reader of that format opens these files; one that holds
shards shows this rank's parts. A load reads what it needs straight into the tensors that are to hold it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import torch
import xxhash

from hpc.checkpoint.files import CHUNK_BYTES, FileEntry, HashingWriter
from hpc.checkpoint.manifest import Piece
from hpc.checkpoint.reading import DamagedError, check_size, checksum_problem, opened
from hpc.checkpoint.shards import Part, is_distributed, overlap
from hpc.errors import SaveError

_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
DTYPES: dict[str, torch.dtype] = {code: getattr(torch, name) for code, name in _NAMES.items()}
CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Layout:
    """Where each tensor lies in one file.

    Args:
        header: Everything before the first tensor.
        begins: First byte of each tensor, from the start of the file, in the order they are written.
    """

    header: bytes
    begins: dict[str, int]


def layout(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> Layout:
    """Large elements first, so that every tensor is aligned to its own element size."""
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, Any] = {"__metadata__": {**metadata}} if metadata else {}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": code_of(tensor, name), "shape": [*tensor.shape], "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return Layout(header, {name: len(header) + entries[name]["data_offsets"][0] for name in names})


def code_of(tensor: torch.Tensor, name: str) -> str:
    """How safetensors spells a tensor's type.

    Raises:
        SaveError: It has no word for it.
    """
    if not is_storable(tensor):
        kinds = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in CODES))
        raise SaveError(
            f"A tensor to save must be dense and one of {kinds}, but is {tensor.layout} {tensor.dtype}"
            f"{'' if type(tensor) is torch.Tensor else f' in a {type(tensor).__name__}'}: {name} cannot be saved."
        )
    return CODES[tensor.dtype]


def is_storable(value: object) -> bool:
    """Whether a file of tensors can hold this, whole or as shards: a dense tensor of a type that safetensors knows."""
    if not isinstance(value, torch.Tensor) or value.dtype not in CODES or value.layout is not torch.strided:
        return False
    return is_distributed(value) or (type(value.detach()) is torch.Tensor and not (value.is_meta or value.is_nested))


def write_tensors(
    writer: HashingWriter, tensors: Mapping[str, torch.Tensor], where: Layout, each: Callable[[], None]
) -> None:
    """Write one file, tensor by tensor: what is not on the CPU is brought there one at a time.

    Args:
        writer: At the start of the file.
        tensors: By name.
        where: Their layout.
        each: Called after every tensor.
    """
    writer.write(where.header)
    for name in where.begins:
        if tensors[name].numel():
            writer.write(bytes_of(tensors[name].cpu().contiguous()))
        each()


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    array: Any = tensor.view(-1).view(torch.uint8).numpy()
    return memoryview(array)


Wanted = tuple[Piece, torch.dtype, Part | None]
"""A piece of the file, its type, and what of it is wanted: None when nothing is."""


def read_tensors(directory: Path, name: str, entry: FileEntry, wanted: Sequence[Wanted], verify: bool) -> None:
    """Read what is wanted of a file into the tensors that are to hold it.

    Args:
        directory: The checkpoint.
        name: Of the file.
        entry: What the manifest says of it.
        wanted: All its pieces.
        verify: Read it whole, and compare its checksum on the way. A file that is wanted whole is verified anyway.

    Raises:
        DamagedError: It is not what was written; the tensors hold anything then.
    """
    ordered = sorted(wanted, key=lambda each: each[0].begin)
    verify = verify or all(_is_wanted_whole(piece, part) for piece, _, part in ordered)
    with opened(directory, name) as file:
        check_size(file, name, entry)
        reader = _Reader(file, name, xxhash.xxh3_128() if verify else None)
        for piece, dtype, part in ordered:
            _read_piece(reader, piece, dtype, part)
        if verify and reader.digest_to(entry.bytes) != entry.xxh3_128:
            raise DamagedError(checksum_problem(name))


class _Reader:
    """A file that is read forward; with a digest nothing is skipped."""

    def __init__(self, file: IO[bytes], name: str, digest: Any) -> None:
        self.file: Any = file
        self.name = name
        self.digest = digest
        self.position = 0

    def skip_to(self, position: int) -> None:
        if self.digest is None:
            self.file.seek(position)
            self.position = position
            return
        scratch = memoryview(bytearray(min(CHUNK_BYTES, position - self.position)))
        while self.position < position:
            self.read_into(scratch[: position - self.position])

    def read_into(self, memory: memoryview) -> None:
        for begin in range(0, len(memory), CHUNK_BYTES):
            chunk = memory[begin : begin + CHUNK_BYTES]
            done = 0
            while done < len(chunk):
                count = self.file.readinto(chunk[done:])
                if not count:
                    raise DamagedError(f"{self.name} ends while it is read")
                done += count
            if self.digest is not None:
                self.digest.update(chunk)
        self.position += len(memory)

    def digest_to(self, end: int) -> str:
        self.skip_to(end)
        return str(self.digest.hexdigest())


def _common(piece: Piece, part: Part | None) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    return None if part is None else overlap(piece.offsets, piece.shape, part.offsets, part.tensor.shape)


def _is_wanted_whole(piece: Piece, part: Part | None) -> bool:
    common = _common(piece, part)
    if common is None:
        return 0 in piece.shape
    return all(inside == slice(0, length) for inside, length in zip(common[0], piece.shape, strict=True))


def _read_piece(reader: _Reader, piece: Piece, dtype: torch.dtype, part: Part | None) -> None:
    common = _common(piece, part)
    if part is None or common is None:
        return
    of_piece, of_part = common
    target = part.tensor[of_part] if part.tensor.dim() else part.tensor
    rows = of_piece[:1] if reader.digest is None else tuple(slice(0, n) for n in piece.shape[:1])
    first = rows[0].start if rows else 0
    shape = [rows[0].stop - first, *piece.shape[1:]] if rows else []
    reader.skip_to(piece.begin + first * prod(piece.shape[1:]) * dtype.itemsize)
    if [*target.shape] == shape and _is_plain(target, dtype):
        reader.read_into(bytes_of(target))
        return
    scratch = torch.empty(shape, dtype=dtype)
    reader.read_into(bytes_of(scratch))
    inside = (slice(of_piece[0].start - first, of_piece[0].stop - first), *of_piece[1:]) if rows else ()
    target.copy_(scratch[inside])


def _is_plain(target: torch.Tensor, dtype: torch.dtype) -> bool:
    return target.is_cpu and target.is_contiguous() and target.dtype is dtype
