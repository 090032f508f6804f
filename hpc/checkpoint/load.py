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

from hpc.checkpoint.files import FileEntry
from hpc.checkpoint.formats import upgraded
from hpc.checkpoint.group import Group
from hpc.checkpoint.manifest import TRAINER_FILE, Manifest, TensorEntry
from hpc.checkpoint.reading import DamagedError, file_damage, read_whole, size_problem, unreadable
from hpc.checkpoint.shards import Part, overlap, part_of
from hpc.checkpoint.state import TrainingState
from hpc.checkpoint.store import Checkpoint, CheckpointStore, passed_over
from hpc.checkpoint.tensors import DTYPES, Wanted, read_tensors
from hpc.checkpoint.trainer import check_trainer, read_trainer, understood
from hpc.checkpoint.unpacking import unpacked
from hpc.checkpoint.untrusted import read_manifest
from hpc.errors import HpcError

STATE = ("models", "optimizers", "others", "grown", "frozen")
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
    problems = _agreed(group, reading.sizes()) or _agreed(group, reading.read(state))
    if problems:
        return problems
    _agreed(group, reading.restore(state))
    return reading.trainer


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

    def sizes(self) -> list[str]:
        """What is wrong with the sizes of this rank's share of the files: no room is made before they are known."""
        mine = {name: entry for name, entry in self.written.files.items() if self._is_mine(entry)}
        problems = (size_problem(self.directory, name, entry) for name, entry in mine.items())
        return [problem for problem in problems if problem]

    def read(self, state: TrainingState) -> list[str] | HpcError:
        """Read everything this rank needs; what is wrong with it is a value, to be compared with other ranks'."""
        try:
            self.trainer = self._read_trainer()
            with understood():
                self.targets = state.targets(self.written, self.trainer)
        except HpcError as error:
            return error
        except DamagedError as error:
            return [str(error)]
        parts = {name: part_of(tensor, self.rank) for name, tensor in self.targets.items()}
        wanted = by_file(self.written.tensors, parts)
        problems = [self._problem(name, wanted.get(name, [])) for name in self.written.files if name != TRAINER_FILE]
        for alias in self.written.aliases.keys() & self.targets.keys():
            target, stored = self.targets[alias], self.targets[self.written.aliases[alias]]
            if target is not stored:
                target.detach().copy_(stored.detach())
        return [problem for problem in problems if problem]

    def restore(self, state: TrainingState) -> list[str] | HpcError:
        """Hand over what was read, and leave in `trainer` what belongs to no object."""
        try:
            with understood():
                values = {name: unpacked(each) for name, each in self.trainer.items() if name not in STATE}
                state.restore(self.directory, self.targets, self.trainer)
        except HpcError as error:
            return error
        self.trainer = values
        return []

    def _read_trainer(self) -> dict[str, Any]:
        """The content of trainer.pt as the newest format has it.

        Raises:
            DamagedError: It is not what was written, or nobody's code but somebody else's has written it.
        """
        try:
            entry = self.written.files[TRAINER_FILE]
            content = read_trainer(io.BytesIO(read_whole(self.directory, TRAINER_FILE, entry)))
            content = upgraded(content, self.written, self.manifest.format)
            check_trainer(content, self.written.tensors.keys() | self.written.aliases.keys())
        except OSError as error:
            raise DamagedError(unreadable(TRAINER_FILE, error)) from error
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedError(f"{TRAINER_FILE} cannot be read ({error})") from error
        return content

    def _is_mine(self, entry: FileEntry) -> bool:
        return entry.rank % self.size == self.rank

    def _problem(self, name: str, wanted: list[Wanted]) -> str | None:
        entry = self.written.files[name]
        is_mine = self._is_mine(entry)
        try:
            if any(part for _, _, part in wanted) or (wanted and is_mine):
                read_tensors(self.directory, name, entry, wanted, is_mine)
            elif is_mine:
                return file_damage(self.directory, name, entry)
        except DamagedError as error:
            return str(error)
        except OSError as error:
            return unreadable(name, error)
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
