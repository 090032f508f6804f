"""How do all ranks save one checkpoint? Every one writes its files; rank 0 makes them visible; all hear how it went."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar, cast

import torch

from hpc.checkpoint.files import HashingWriter, explained, read_entry, write_file
from hpc.checkpoint.manifest import TRAINER_FILE, Manifest, Piece, TensorEntry, Written, merged
from hpc.checkpoint.names import below
from hpc.checkpoint.random_state import random_state
from hpc.checkpoint.shards import Part, is_distributed, part_of
from hpc.checkpoint.state import SavesItself, TrainingState
from hpc.checkpoint.store import Checkpoint, CheckpointStore
from hpc.checkpoint.tensors import code_of, layout, write_tensors
from hpc.errors import SaveError
from hpc.failpoints import failpoint
from hpc.files import flush_directory
from hpc.world import World

_T = TypeVar("_T")


class Group(Protocol):
    """The ranks that save and load together, and plain values between them."""

    @property
    def world(self) -> World:
        """Which of them this is."""
        ...

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank. Collective."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on rank 0; elsewhere an empty list. Collective."""
        ...

    def all_gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every rank. Collective."""
        ...


@dataclass(frozen=True)
class Snapshot:
    """One rank's part of a checkpoint, as of one step.

    Args:
        step: Optimizer steps taken.
        parts: What this rank writes, by kind and name.
        trainer: What trainer.pt holds for all ranks.
        rank_state: What trainer.pt holds for this rank.
        sharded: Whether several ranks write tensors.
        aliases: Names of tied tensors -> the name that is stored.
        metrics: The newest logged values.
        engines: What saves itself; such a snapshot must be committed before training goes on.
        ready: Returns when the tensors can be read.
    """

    step: int
    parts: dict[str, Part]
    trainer: dict[str, Any]
    rank_state: dict[str, Any]
    sharded: bool = False
    aliases: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    engines: Mapping[str, SavesItself] = field(default_factory=dict)
    ready: Callable[[], object] = lambda: None


def snapshot(
    state: TrainingState,
    step: int,
    rank: int,
    extra: Mapping[str, Any],
    metrics: Mapping[str, float],
    position: Any = None,
) -> Snapshot:
    """What this rank would save now; tensors share memory with what is trained.

    Args:
        state: What is trained.
        step: Optimizer steps taken.
        rank: This one.
        extra: Goes into trainer.pt beside the rest.
        metrics: Go into the manifest.
        position: Goes into trainer.pt as this rank's own.

    Raises:
        SaveError: A tensor is placed or typed in a way that no file can hold.
    """
    contents = state.contents(extra)
    parts = {name: part_of(tensor, rank) for name, tensor in contents.tensors.items()}
    return Snapshot(
        step,
        {name: part for name, part in parts.items() if part.is_written},
        contents.trainer,
        {"random": random_state(), "position": position},
        sharded=any(map(is_distributed, contents.tensors.values())),
        aliases=contents.aliases,
        metrics=dict(metrics),
        engines=state.engines,
    )


def commit(store: CheckpointStore, group: Group, contents: Snapshot) -> Checkpoint:
    """Write and publish a checkpoint; the same outcome on every rank. Collective.

    Raises:
        SaveError: A rank could not write its files, or a newer life has taken over; nothing is left of it.
    """
    rank = group.world.rank
    begun = group.broadcast(_outcome(lambda: store.begin(contents.step)) if rank == 0 else None)
    temporary: Path = _raised(begun)
    failpoint("begun", rank)
    states = group.gather(contents.rank_state)
    outcomes = [group.gather(_outcome(lambda: _write(temporary, contents, states, rank)))]
    if contents.engines:
        outcomes.append(_save_engines(temporary, contents.engines, group))
    failpoint("gathered", rank)
    published = _outcome(lambda: _publish(store, temporary, contents, outcomes)) if rank == 0 else None
    result = group.broadcast(published)
    failpoint("told", rank)
    return cast("Checkpoint", _raised(result))


def _publish(
    store: CheckpointStore, temporary: Path, contents: Snapshot, outcomes: list[list[Written | SaveError]]
) -> Checkpoint:
    """On rank 0: a checkpoint if all ranks could write, else nothing."""
    try:
        written = merged([_raised(each) for ranks in outcomes for each in ranks])
        manifest = Manifest(contents.step, store.token, round(time.time(), 3), contents.metrics, written)
        return store.publish(temporary, manifest)
    finally:
        store.discard(temporary)


def _write(directory: Path, contents: Snapshot, states: list[Any], rank: int) -> Written:
    """This rank's files, durable."""
    contents.ready()
    kinds = sorted({name.split("/", 1)[0] for name in contents.parts})
    suffix = f".rank_{rank:05d}" if contents.sharded else ""
    with explained(directory.parent):
        written = [_write_kind(directory / f"{kind}{suffix}.safetensors", kind, contents, rank) for kind in kinds]
        if rank == 0:
            content = {**contents.trainer, "ranks": states}
            entry = write_file(directory / TRAINER_FILE, rank, lambda writer: _save(content, writer))
            written.append(Written({TRAINER_FILE: entry}, aliases=contents.aliases))
        flush_directory(directory)
    failpoint("written", rank)
    return merged(written)


def _write_kind(path: Path, kind: str, contents: Snapshot, rank: int) -> Written:
    parts = below(kind, contents.parts)
    tensors = {name: part.tensor for name, part in parts.items()}
    where = layout(tensors)

    def write(writer: HashingWriter) -> None:
        write_tensors(writer, tensors, where, lambda: failpoint("in_file", rank))

    entry = write_file(path, rank, write)
    failpoint("file_flushed", rank)
    entries = {f"{kind}/{name}": _entry(parts[name], path.name, begin) for name, begin in where.begins.items()}
    return Written({path.name: entry}, entries)


def _entry(part: Part, file: str, begin: int) -> TensorEntry:
    return TensorEntry(code_of(part.tensor), part.shape, (Piece(file, begin, part.offsets, tuple(part.tensor.shape)),))


def _save(content: Any, writer: HashingWriter) -> None:
    torch.save(content, cast("IO[bytes]", writer))  # write is all that torch asks of a file (torch 2.6-2.13)


def _save_engines(directory: Path, engines: Mapping[str, SavesItself], group: Group) -> list[Written | SaveError]:
    """Let engines write into directories of their own; their files are divided among the ranks for reading."""
    saved = group.all_gather(_outcome(lambda: _call_engines(directory, engines)))
    problem = next((each for each in saved if isinstance(each, SaveError)), None)
    names = group.broadcast(_files_of(directory, engines)) if problem is None else []
    rank, size = group.world.rank, group.world.world_size
    return group.gather(problem or _outcome(lambda: _read_back(directory, names[rank::size], rank)))


def _call_engines(directory: Path, engines: Mapping[str, SavesItself]) -> None:
    with explained(directory.parent):
        for name, engine in engines.items():
            (directory / name).mkdir(exist_ok=True)
            engine.save_files(directory / name)


def _files_of(directory: Path, engines: Mapping[str, SavesItself]) -> list[str]:
    found = [path for name in engines for path in (directory / name).rglob("*") if path.is_file()]
    return sorted(path.relative_to(directory).as_posix() for path in found)


def _read_back(directory: Path, names: list[str], rank: int) -> Written:
    with explained(directory.parent):
        for each in {(directory / name).parent for name in names}:
            flush_directory(each)
        return Written({name: read_entry(directory / name, rank) for name in names})


def _outcome(action: Callable[[], _T]) -> _T | SaveError:
    """A SaveError as a value, so that it can be told to other ranks."""
    try:
        return action()
    except SaveError as error:
        return error


def _raised(outcome: Any) -> Any:
    if isinstance(outcome, SaveError):
        raise outcome
    return outcome
