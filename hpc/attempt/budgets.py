"""How often may a run begin again without a new checkpoint?"""

from __future__ import annotations

from pathlib import Path

from hpc.errors import NoProgressError
from hpc.run.journal import read_journal_and_parts
from hpc.run.lives import Life, lives, lives_without_progress


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


def _ending(idle: list[Life]) -> str:
    failure = idle[-1].first_failure if idle else None
    if failure is None:
        return "stopped by itself" if idle and idle[-1].left_well else "ended without a word"
    return f"failed on rank {failure.rank} ({failure.reason.rstrip('.')})"
