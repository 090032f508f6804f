"""What the journal of a run tells, by kind."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from hpc.run.events import Event
from hpc.run.journal import read_journal
from hpc.run.lives import last_committed_step, lives

Kind = TypeVar("Kind", bound=Event)


def told(directory: Path, kind: type[Kind]) -> list[Kind]:
    """The events of one kind, in order."""
    return [event for event in read_journal(directory) if isinstance(event, kind)]


def newest_commit(directory: Path) -> int | None:
    """The newest step that the journal says is on disk."""
    return last_committed_step(lives(read_journal(directory)))
