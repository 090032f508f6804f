"""How often may a run begin again without a new checkpoint?

Whoever watches over the ranks writes down how each life has ended, and counts: the batch script, in the shell, or the
queue of a machine, here. A life that nobody watches over, as in a terminal, counts those before it when it begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hpc.config import Settings
from hpc.errors import NoProgressError
from hpc.run.events import Event
from hpc.run.journal import read_journal_and_parts
from hpc.run.lives import Life, ends_in_a_row, lives, lives_without_progress
from hpc.slurm.why import CRASH


def check_progress(directory: Path, most: int) -> None:
    """Refuse another life where too many have made no new checkpoint.

    Args:
        directory: The run directory; what its named folds and phases have saved is progress, too.
        most: runtime.max_lives_without_progress.

    Raises:
        NoProgressError: Too many lives have; the message tells how the last of them ended.
        LoadError: The journal cannot be read.
    """
    idle = lives_without_progress(lives(read_journal_and_parts(directory)))
    if len(idle) >= most:
        raise NoProgressError(
            f"runtime.max_lives_without_progress is {most}, and {directory} has had {len(idle)} lives without a new "
            f"checkpoint, the last of which {_ending(idle)}: look at its journal/ and failures/, then raise the limit "
            "to go on."
        )


def spent(events: Iterable[Event], budget: str, settings: Settings) -> str:
    """Which setting says that a run does not go on after a life which has just ended; "" where it does.

    Args:
        events: Of its journal, those of its folds and phases included; they do not tell of this end yet.
        budget: What the end counts as: a crash, or a life.
        settings: Its own.
    """
    before = ends_in_a_row(events)
    crashes = sum(end.budget == CRASH for end in before)
    if budget == CRASH and crashes + 1 >= settings.launch.max_crashes:
        return f"launch.max_crashes={settings.launch.max_crashes} is reached without a new checkpoint"
    most = settings.runtime.max_lives_without_progress
    return f"runtime.max_lives_without_progress={most} is reached" if len(before) + 1 >= most else ""


def _ending(idle: list[Life]) -> str:
    failure = idle[-1].first_failure if idle else None
    if failure is None:
        return "stopped by itself" if idle and idle[-1].left_well else "ended without a word"
    return f"failed on rank {failure.rank} ({failure.reason.rstrip('.')})"
