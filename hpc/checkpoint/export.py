"""How do weights leave? As one file with whole tensors, on a machine without GPUs, from whatever ranks have written."""

from __future__ import annotations

from pathlib import Path

import torch

from hpc.checkpoint.files import HashingWriter, explained
from hpc.checkpoint.load import by_file
from hpc.checkpoint.reading import DamagedError, shown, size_problem
from hpc.checkpoint.shards import part_of
from hpc.checkpoint.store import Checkpoint, passed_over
from hpc.checkpoint.tensors import DTYPES, layout, read_tensors, write_tensors
from hpc.checkpoint.untrusted import read_manifest
from hpc.errors import ConfigurationError, LoadError
from hpc.files import replacing


def export(checkpoint: Checkpoint, output: Path, file_format: str) -> int:
    """Write a checkpoint's weights into one file that others read; returns its size in bytes.

    Args:
        checkpoint: From a store; verified while it is read.
        output: Written whole or not at all.
        file_format: safetensors, or pt: what `torch.load` gives to `load_state_dict`.

    Raises:
        ConfigurationError: The checkpoint holds no weights by name, because an engine has saved them.
        LoadError: It is not what was written.
        SaveError: The output could not be written.
    """
    try:
        weights, aliases = read_weights(checkpoint.directory)
    except (DamagedError, OSError) as error:
        raise LoadError(passed_over(checkpoint, [shown(error)])) from error
    with explained(output.parent):
        with replacing(output) as file:
            if file_format == "pt":
                torch.save(weights | {name: weights[stored] for name, stored in aliases.items()}, file)
            else:
                write_tensors(HashingWriter(file), weights, layout(weights, aliases), lambda: None)
        return output.stat().st_size


def read_weights(directory: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Whole tensors by name, and the names that are tied to one of them.

    Raises:
        ConfigurationError: There are none.
        DamagedError: A file is not what was written.
    """
    written = read_manifest(directory).written
    entries = {name: entry for name, entry in written.tensors.items() if name.startswith("model")}
    if not entries:
        raise ConfigurationError(
            f"{directory} must hold tensors by name to be exported, but an engine has saved it in files of its own: "
            "use the engine's tools on them."
        )
    for name in {piece.file for entry in entries.values() for piece in entry.pieces}:
        problem = size_problem(directory, name, written.files[name])
        if problem:
            raise DamagedError(problem)
    tensors = {name: torch.empty(entry.shape, dtype=DTYPES[entry.dtype]) for name, entry in entries.items()}
    wanted = by_file(entries, {name: part_of(tensor, 0) for name, tensor in tensors.items()})
    for name, pieces in wanted.items():
        read_tensors(directory, name, written.files[name], pieces, verify=True)
    tied = {name: stored for name, stored in written.aliases.items() if name.startswith("model") and stored in entries}
    return (
        {_exported(name): tensor for name, tensor in tensors.items()},
        {_exported(name): _exported(stored) for name, stored in tied.items()},
    )


def _exported(name: str) -> str:
    """The first model's names as they are; those of further models keep which one it is."""
    return name.removeprefix("model/")
