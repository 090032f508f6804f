"""Which bytes does the example train on, which are held out, and how do they become batches?

Every machine that runs Python already has a few megabytes of real text: the standard library's own sources.
"""

from __future__ import annotations

import hashlib
import math
import os
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.utils.data import Dataset

from hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

HELD_OUT_SHARE = 0.05
"""Part of the files (or, of a single file, of its bytes) that is never trained on."""

# Environments with PyTorch keep tens of thousands of files in the first two; the others are tables and test data.
STDLIB_BULK = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data"}
)


class Text(NamedTuple):
    """Bytes to learn from and bytes to be judged on; no file is in both, unless there is only one file.

    Args:
        training: Files joined by newlines, in order of their names.
        held_out: The same, of the files held out.
    """

    training: bytes
    held_out: bytes


def read_text(path: str | None = None) -> Text:
    """Read a file, a folder, or Python's standard library, and hold out a twentieth of it.

    Args:
        path: `data.path`: a text file, a folder of text files, or None for the running interpreter's sources.

    Returns:
        The same split wherever the same files are: they are ranked by a hash of their relative names, so
        neither the order of a directory listing nor `PYTHONHASHSEED` has a say.

    Raises:
        ConfigurationError: `data.path` does not exist, or there is no text in it.
    """
    if path is None:
        return _split_folder(Path(sysconfig.get_paths()["stdlib"]), ".py", STDLIB_BULK)
    root = Path(path).expanduser()
    if root.is_dir():
        return _split_folder(root, "", frozenset())
    if root.is_file():
        return _split_file(root)
    raise ConfigurationError(
        f"data.path must be a text file or a folder of text files, but {str(root)!r} does not exist: "
        "correct it, or leave it out to read Python's standard library."
    )


def text_of(ids: torch.Tensor) -> str:
    """Decode byte ids of shape [T]; bytes that are not UTF-8 become U+FFFD."""
    return bytes(ids.tolist()).decode("utf-8", errors="replace")


class ByteBlocks(Dataset[dict[str, torch.Tensor]]):
    """Text as fixed windows that do not overlap: item i predicts bytes i*block_size+1 ... (i+1)*block_size.

    One byte of memory per byte of text: windows are views, and become int64 only when fetched.

    Args:
        text: The bytes to cut; a remainder shorter than a window is left out.
        block_size: `data.block_size`: predictions per window.

    Raises:
        ConfigurationError: The text does not fill one window.
    """

    def __init__(self, text: bytes, block_size: int) -> None:
        if not 1 <= block_size < len(text):
            raise ConfigurationError(
                f"data.block_size must be at least 1 and less than the {len(text)} bytes of text it cuts, but is "
                f"{block_size}: choose another, or set data.path to a longer text."
            )
        # From a bytearray, because torch warns about a tensor over bytes, which nobody may write to.
        self._windows = torch.frombuffer(bytearray(text), dtype=torch.uint8).unfold(0, block_size + 1, block_size)

    def __len__(self) -> int:
        return self._windows.shape[0]

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `labels`, int64 of shape [block_size], the labels one byte ahead."""
        window = self._windows[index].long()
        return {"input_ids": window[:-1], "labels": window[1:]}


def _split_folder(folder: Path, suffix: str, skip: frozenset[str]) -> Text:
    files = dict(sorted(_text_files(folder, suffix, skip)))
    if not files:
        raise _no_text(folder)
    if len(files) == 1:
        return _split_file(folder / next(iter(files)))
    held_out = _held_out_names(files)
    training = [content for name, content in files.items() if name not in held_out]
    return Text(b"\n".join(training), b"\n".join(files[name] for name in sorted(held_out)))


def _split_file(path: Path) -> Text:
    content = _text(path)
    if not content:
        raise _no_text(path)
    cut = len(content) - int(len(content) * HELD_OUT_SHARE)
    return Text(content[:cut], content[cut:])


def _no_text(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"data.path must hold text, but {str(path)!r} has none (binary and hidden files are not read): "
        "point it at a text file or at a folder of text files."
    )


def _held_out_names(names: Collection[str]) -> set[str]:
    count = math.ceil(len(names) * HELD_OUT_SHARE)
    return set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:count])


def _text_files(folder: Path, suffix: str, skip: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    for parent, folders, names in os.walk(folder):
        # In place, so that os.walk does not go there at all: an environment's site-packages takes seconds.
        folders[:] = [name for name in folders if name not in skip and not name.startswith(".")]
        for path in (Path(parent, name) for name in names if _is_wanted(name, suffix)):
            if path.is_file() and (content := _text(path)):
                yield path.relative_to(folder).as_posix(), content


def _is_wanted(name: str, suffix: str) -> bool:
    return name.endswith(suffix) and not name.startswith(".")


def _text(path: Path) -> bytes:
    """Return the content of a text file, and nothing for a binary one, of which only the start is read."""
    with path.open("rb") as file:
        start = file.read(8192)
        # The sign git and grep go by: UTF-16 is lost; archives, images and compiled files are kept out.
        return b"" if b"\0" in start else start + file.read()
