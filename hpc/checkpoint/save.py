"""How do all ranks save one checkpoint? Every one writes its files; rank 0 makes them visible; all hear how it went."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, cast

import torch

from hpc.checkpoint.drift import Statement, Survey, difference, disagree, evidence, survey, verdict
from hpc.checkpoint.engines import SavesItself, save_engines
from hpc.checkpoint.files import HashingWriter, explained, write_file
from hpc.checkpoint.group import Group, outcome_of, raised
from hpc.checkpoint.manifest import TRAINER_FILE, Manifest, Piece, TensorEntry, Written, merged
from hpc.checkpoint.names import below
from hpc.checkpoint.packing import packed
from hpc.checkpoint.random_state import random_state
from hpc.checkpoint.shards import ALL_RANKS, Part, is_distributed, part_of
from hpc.checkpoint.state import TrainingState
from hpc.checkpoint.store import Checkpoint, CheckpointStore
from hpc.checkpoint.tensors import code_of, layout, write_tensors
from hpc.checkpoint.trainer import read_trainer
from hpc.checkpoint.unpacking import unpacked
from hpc.errors import HpcError, LoadError, SaveError
from hpc.failpoints import failpoint
from hpc.files import flush_directory


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
        parameters: Which parts are parameters of models.
        surveys: What those parameters were like that other ranks write.
        settings: What all ranks must have alike besides, by name.
        doubt: Says since which step something was not finite on this rank, and what; "" when all was.
        problem: Why this rank has nothing to save; it is an error of all ranks then.
    """

    step: int
    parts: dict[str, Part] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    rank_state: dict[str, Any] = field(default_factory=dict)
    sharded: bool = False
    aliases: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    engines: Mapping[str, SavesItself] = field(default_factory=dict)
    ready: Callable[[], object] = lambda: None
    parameters: frozenset[str] = frozenset()
    surveys: tuple[Survey, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    doubt: Callable[[], tuple[int, str]] = lambda: (0, "")
    problem: HpcError | None = None


def snapshot(
    state: TrainingState,
    step: int,
    rank: int,
    extra: Mapping[str, Any],
    metrics: Mapping[str, float],
    position: Any = None,
    doubt: Callable[[], tuple[int, str]] = lambda: (0, ""),
    alike: Mapping[str, str] = MappingProxyType({}),
) -> Snapshot:
    """What this rank would save now; tensors share memory with what is trained. Never raises an HpcError.

    What keeps this rank from saving is part of the snapshot, because all ranks have to hear of it: `commit` raises it.

    Args:
        state: What is trained.
        step: Optimizer steps taken.
        rank: This one.
        extra: Goes into trainer.pt beside the rest.
        metrics: Go into the manifest.
        position: Goes into trainer.pt as this rank's own.
        doubt: Asked while the snapshot is committed: what was not finite on this rank?
        alike: Name -> value of what must be the same on all ranks besides.
    """
    try:
        contents = state.contents(extra)
        parts = {name: part_of(tensor, rank) for name, tensor in contents.tensors.items()}
        own = packed({"random": random_state(), "position": position}, f"rank {rank}")
    except HpcError as error:
        return Snapshot(step, problem=error)
    elsewhere = {name: parts[name] for name in contents.parameters & parts.keys() if not parts[name].is_written}
    return Snapshot(
        step,
        {name: part for name, part in parts.items() if part.is_written},
        contents.trainer,
        own,
        sharded=any(map(is_distributed, contents.tensors.values())),
        aliases=contents.aliases,
        metrics=dict(metrics),
        engines=state.engines,
        parameters=contents.parameters,
        surveys=(*survey(elsewhere), *survey(_parts_of_engines(state.engines))),
        settings={**contents.settings, **alike},
        doubt=doubt,
    )


def _parts_of_engines(engines: Mapping[str, SavesItself]) -> dict[str, Part]:
    return {
        f"{name}/{key}": Part(
            each.detach(), tuple(each.shape), (0,) * each.dim(), False, ALL_RANKS if engine.is_shared else ""
        )
        for name, engine in engines.items()
        for key, each in engine.parameters().items()
    }


def commit(store: CheckpointStore, group: Group, contents: Snapshot) -> Checkpoint:
    """Write and publish a checkpoint; the same outcome on every rank. Collective.

    Raises:
        ConfigurationError: A rank has something to save that no file can hold.
        DivergedError: A loss or a parameter is not finite.
        DriftError: Ranks differ in what they should share.
        SaveError: A rank could not write its files, or a newer life has taken over; nothing is left of it.
    """
    rank = group.world.rank
    _examine(group, contents)
    begun = group.broadcast(outcome_of(lambda: store.begin(contents.step)) if rank == 0 else None)
    temporary: Path = raised(begun)
    failpoint("begun", rank)
    states = group.gather(contents.rank_state)
    outcomes = [group.gather(outcome_of(lambda: _write(temporary, contents, states, rank)))]
    if contents.engines:
        outcomes.append(save_engines(temporary, contents.engines, group))
    failpoint("gathered", rank)
    published = outcome_of(lambda: _publish(store, temporary, contents, outcomes)) if rank == 0 else None
    result = group.broadcast(published)
    failpoint("told", rank)
    return cast("Checkpoint", raised(result))


def _examine(group: Group, contents: Snapshot) -> None:
    """Refuse a checkpoint that should not be, alike on all ranks, before anything is written. Collective."""
    contents.ready()
    written = {name: part for name, part in contents.parts.items() if name in contents.parameters}
    if group.world.world_size == 1:  # nobody to compare with
        written = {name: replace(part, shared_by="") for name, part in written.items()}
    known = evidence([*contents.surveys, *survey(written)], contents.settings)
    said = Statement(contents.problem, contents.doubt(), known.not_finite, known.digests())
    statements = group.all_gather(said)
    error = verdict(statements, contents.step)
    if error is None and disagree(statements):
        error = difference(group.all_gather(known.values), contents.step)
    if error is not None:
        raise error


def _publish(
    store: CheckpointStore, temporary: Path, contents: Snapshot, outcomes: list[list[Written | SaveError]]
) -> Checkpoint:
    """On rank 0: a checkpoint if all ranks could write, else nothing."""
    try:
        written = merged([raised(each) for ranks in outcomes for each in ranks])
        manifest = Manifest(contents.step, store.token, round(time.time(), 3), contents.metrics, written)
        return store.publish(temporary, manifest)
    finally:
        store.discard(temporary)


def _write(directory: Path, contents: Snapshot, states: list[Any], rank: int) -> Written:
    """This rank's files, durable."""
    kinds = sorted({name.split("/", 1)[0] for name in contents.parts})
    suffix = f".rank_{rank:05d}" if contents.sharded else ""
    with explained(directory.parent):
        written = [_write_kind(directory / f"{kind}{suffix}.safetensors", kind, contents, rank) for kind in kinds]
        if rank == 0:
            content = {**contents.trainer, "ranks": states}
            entry = write_file(directory / TRAINER_FILE, rank, lambda writer: _save(content, writer))
            _check_readable(directory / TRAINER_FILE)
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
    return TensorEntry(
        code_of(part.tensor, file), part.shape, (Piece(file, begin, part.offsets, tuple(part.tensor.shape)),)
    )


def _save(content: Any, writer: HashingWriter) -> None:
    torch.save(content, cast("IO[bytes]", writer))  # write is all that torch asks of a file (torch 2.6-2.13)


def _check_readable(path: Path) -> None:
    """What cannot be read back must not be taken for a checkpoint.

    Raises:
        SaveError: It cannot.
    """
    try:
        with path.open("rb") as file:
            unpacked(read_trainer(file), lambda _: torch.empty(0))
    except (ValueError, LoadError) as error:
        raise SaveError(f"{path.name} was written, but cannot be read back: {error}.") from error
