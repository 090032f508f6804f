"""What does a run go on from? The newest checkpoint whose every byte is as it was written, whoever wrote it.

Values are read first, by a reader that never runs code from the file. Tensors are read straight into the model and
verified on the way. A checkpoint that turns out to be damaged is named, and the one before it is read in its place.
Each rank reads the parts that it holds. It verifies the files that it reads whole, and those whose writer modulo the
world size is its rank, so that every file is verified once.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hpc.checkpoint.files import DamagedError, file_damage, read_whole
from hpc.checkpoint.formats import upgraded
from hpc.checkpoint.manifest import TRAINER_FILE, Manifest, TensorEntry, read_manifest
from hpc.checkpoint.plain import unpacked
from hpc.checkpoint.save import Group, read_trainer
from hpc.checkpoint.shards import Part, overlap, part_of
from hpc.checkpoint.state import TrainingState
from hpc.checkpoint.store import Checkpoint, CheckpointStore, passed_over
from hpc.checkpoint.tensors import DTYPES, Wanted, read_tensors
from hpc.errors import HpcError

STATE = ("models", "optimizers", "others", "frozen")
"""What of trainer.pt objects take back themselves."""


@dataclass(frozen=True)
class Resumed:
    """Where a run goes on from.

    Args:
        checkpoint: What was loaded.
        trainer: The content of its trainer.pt, without the state of objects, which they have back.
    """

    checkpoint: Checkpoint
    trainer: dict[str, Any]


def load_latest(
    store: CheckpointStore, state: TrainingState, group: Group, report: Callable[[str], None]
) -> Resumed | None:
    """Put the newest good checkpoint into `state`; returns None where there is no checkpoint. Collective.

    Args:
        store: Listed by rank 0 alone, because directory listings on a network may differ.
        state: Models are overwritten in place; optimizers get new tensors.
        group: Everybody who loads.
        report: Told on rank 0 about each checkpoint that is passed over.

    Raises:
        LoadError: A checkpoint is of something else than what is being trained.
    """
    is_first = group.world.rank == 0
    for checkpoint in group.broadcast(store.list() if is_first else None):
        trainer = _load(checkpoint, state, group)
        if isinstance(trainer, dict):
            store.verified_step = checkpoint.step
            return Resumed(checkpoint, trainer)
        if is_first:
            report(passed_over(checkpoint, trainer))
    return None


def _load(checkpoint: Checkpoint, state: TrainingState, group: Group) -> dict[str, Any] | list[str]:
    """The content of trainer.pt, or what is wrong with the checkpoint."""
    manifest = group.broadcast(_manifest(checkpoint) if group.world.rank == 0 else None)
    if isinstance(manifest, str):
        return [manifest]
    reading = _Reading(checkpoint.directory, manifest, group)
    problems = _agreed(group, reading.read(state))
    if problems:
        return problems
    _agreed(group, reading.restore(state))
    return reading.values()


def _agreed(group: Group, outcome: list[str] | HpcError) -> list[str]:
    """What is wrong, on whichever rank; an error of one is raised on all."""
    outcomes = group.all_gather(outcome)
    for error in (each for each in outcomes if isinstance(each, HpcError)):
        raise error
    return sorted({problem for each in outcomes for problem in each})


def _manifest(checkpoint: Checkpoint) -> Manifest | str:
    try:
        return read_manifest(checkpoint.directory)
    except DamagedError as error:
        return str(error)


class _Reading:
    """One rank's attempt at one checkpoint."""

    def __init__(self, directory: Path, manifest: Manifest, group: Group) -> None:
        self.directory, self.manifest, self.written = directory, manifest, manifest.written
        self.rank, self.size = group.world.rank, group.world.world_size
        self.targets: dict[str, torch.Tensor] = {}
        self.trainer: dict[str, Any] = {}

    def read(self, state: TrainingState) -> list[str] | HpcError:
        """Read everything this rank needs; what is wrong with it is a value, to be compared with other ranks'."""
        try:
            self.trainer = self._read_trainer()
            self.targets = state.targets(self.written, self.trainer)
        except HpcError as error:
            return error
        except DamagedError as error:
            return [str(error)]
        parts = {name: part_of(tensor, self.rank) for name, tensor in self.targets.items()}
        wanted = by_file(self.written.tensors, parts)
        problems = [self._problem(name, wanted.get(name, [])) for name in self.written.files if name != TRAINER_FILE]
        for alias, stored in self.written.aliases.items():
            target = self.targets.get(alias)
            if target is not None and target is not self.targets[stored]:
                target.detach().copy_(self.targets[stored].detach())
        return [problem for problem in problems if problem]

    def restore(self, state: TrainingState) -> list[str] | HpcError:
        """Hand over what was read."""
        try:
            state.restore(self.directory, self.targets, self.trainer)
        except HpcError as error:
            return error
        return []

    def values(self) -> dict[str, Any]:
        """What trainer.pt holds besides the state of objects."""
        return {name: unpacked(each) for name, each in self.trainer.items() if name not in STATE}

    def _read_trainer(self) -> dict[str, Any]:
        """The content of trainer.pt as the newest format has it.

        Raises:
            DamagedError: It is not what was written, or nobody's code but somebody else's has written it.
        """
        try:
            entry = self.written.files[TRAINER_FILE]
            content = read_trainer(io.BytesIO(read_whole(self.directory / TRAINER_FILE, entry)))
            return upgraded(content, self.written, self.manifest.format)
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise DamagedError(f"{TRAINER_FILE} cannot be read ({error})") from error

    def _problem(self, name: str, wanted: list[Wanted]) -> str | None:
        path, entry = self.directory / name, self.written.files[name]
        is_mine = entry.rank % self.size == self.rank
        try:
            if any(part for _, _, part in wanted) or (wanted and is_mine):
                read_tensors(path, entry, wanted, is_mine)
            elif is_mine:
                return file_damage(path, entry)
        except DamagedError as error:
            return str(error)
        except OSError as error:
            return f"{name} cannot be read ({error})"
        return None


def by_file(tensors: Mapping[str, TensorEntry], parts: Mapping[str, Part]) -> dict[str, list[Wanted]]:
    """All pieces of every file, each with what of it belongs on this rank."""
    wanted: dict[str, list[Wanted]] = {}
    for name, entry in tensors.items():
        part = parts.get(name)
        for piece in entry.pieces:
            common = part and overlap(piece.offsets, piece.shape, part.offsets, part.tensor.shape)
            wanted.setdefault(piece.file, []).append((piece, DTYPES[entry.dtype], part if common is not None else None))
    return wanted
