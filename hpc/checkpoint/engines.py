"""How does an engine that keeps model and optimizer in files of its own take part in a checkpoint?"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch

from hpc.checkpoint.files import explained, read_entry
from hpc.checkpoint.group import Group, outcome_of
from hpc.checkpoint.manifest import Written
from hpc.errors import SaveError
from hpc.files import DIRECTORY_MODE, flush_directory, narrow_umask


class SavesItself(Protocol):
    """An engine that keeps model and optimizer in files of its own, as DeepSpeed's does."""

    def save_files(self, directory: Path) -> None:
        """Write everything into an empty directory, the same on all ranks. Collective."""
        ...

    def load_files(self, directory: Path) -> None:
        """Take it back; the files have been verified. Collective."""
        ...

    def parameters(self) -> Mapping[str, torch.Tensor]:
        """What of its parameters can be looked at on this rank."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether all ranks have these parameters alike."""
        ...


def save_engines(directory: Path, engines: Mapping[str, SavesItself], group: Group) -> list[Written | SaveError]:
    """Let engines write into directories of their own; ranks divide the files to read them. Collective."""
    saved = group.all_gather(outcome_of(lambda: _call_engines(directory, engines)))
    problem = next((each for each in saved if isinstance(each, SaveError)), None)
    names = group.broadcast(_files_of(directory, engines)) if problem is None else []
    rank, size = group.world.rank, group.world.world_size
    return group.gather(problem or outcome_of(lambda: _read_back(directory, names[rank::size], rank)))


def _call_engines(directory: Path, engines: Mapping[str, SavesItself]) -> None:
    with explained(directory.parent):
        for name, engine in engines.items():
            with suppress(FileExistsError):  # each rank's call makes it
                (directory / name).mkdir(DIRECTORY_MODE)
            with narrow_umask():
                engine.save_files(directory / name)


def _files_of(directory: Path, engines: Mapping[str, SavesItself]) -> list[str]:
    found = [path for name in engines for path in (directory / name).rglob("*") if path.is_file()]
    return sorted(path.relative_to(directory).as_posix() for path in found)


def _read_back(directory: Path, names: list[str], rank: int) -> Written:
    with explained(directory.parent):
        for each in {(directory / name).parent for name in names}:
            flush_directory(each)
        return Written({name: read_entry(directory / name, rank) for name in names})
