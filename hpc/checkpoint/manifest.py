"""What does a checkpoint directory hold, and where does each piece of each tensor lie?

manifest.json is one JSON object: `checkpoint` says everything below, `xxh3_128` is the checksum of that part's bytes.
`hpc.checkpoint.untrusted` reads it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import xxhash

from hpc.checkpoint.files import FileEntry

MANIFEST_FILE = "manifest.json"
TRAINER_FILE = "trainer.pt"
ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
"""Bytes of an element, by type as safetensors spells it."""
FORMAT = 2
OLDEST_FORMAT = 1
OPENING = b'{"xxh3_128":"%b","checkpoint":'


@dataclass(frozen=True)
class Piece:
    """A box of a tensor, contiguous in one file.

    Args:
        file: Its name.
        begin: First byte, from the start of the file.
        offsets: Where in the whole tensor the box begins, per dimension.
        shape: Of the box.
    """

    file: str
    begin: int
    offsets: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the whole run.

    Args:
        dtype: As safetensors spells it: F32, BF16.
        shape: Of the whole tensor.
        pieces: Together they are the whole tensor, and no two overlap.
    """

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Written:
    """What one rank has put into the directory.

    Args:
        files: By name.
        tensors: By kind and name (`model/blocks.0.weight`), with this rank's pieces.
        aliases: Names of tensors that are stored under another name.
    """

    files: dict[str, FileEntry] = field(default_factory=dict)
    tensors: dict[str, TensorEntry] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Everything there is to know of a checkpoint.

    Args:
        step: Optimizer steps taken when it was saved.
        token: Of the life that saved it.
        saved_at: Seconds since the epoch.
        metrics: The newest logged values.
        written: By all ranks.
        format: How trainer.pt and the names of tensors are laid out; see `hpc.checkpoint.formats`.
    """

    step: int
    token: str
    saved_at: float
    metrics: dict[str, float]
    written: Written
    format: int = FORMAT

    def to_bytes(self) -> bytes:
        """The content of manifest.json."""
        fields = dataclasses.asdict(self)
        fields |= fields.pop("written")
        content = json.dumps(fields, separators=(",", ":")).encode()
        return OPENING % xxhash.xxh3_128_hexdigest(content).encode() + content + b"}\n"


def merged(parts: Iterable[Written]) -> Written:
    """What all ranks have written, together."""
    whole = Written()
    for part in parts:
        whole.files.update(part.files)
        whole.aliases.update(part.aliases)
        for name, entry in part.tensors.items():
            before = whole.tensors[name].pieces if name in whole.tensors else ()
            whole.tensors[name] = dataclasses.replace(entry, pieces=before + entry.pieces)
    return whole
