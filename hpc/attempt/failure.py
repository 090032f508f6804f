"""Which rank failed first, and why? It writes that down: for all other ranks, the batch script and the journal."""

from __future__ import annotations

import contextlib
import os

from hpc.attempt.attempt import Attempt
from hpc.errors import HpcError, SaveError
from hpc.files import create, make_directory
from hpc.run.events import Failed
from hpc.say import described


def code_of(cause: BaseException) -> int:
    """The exit code that tells what has happened."""
    return cause.exit_code if isinstance(cause, HpcError) else 1


def note_failure(attempt: Attempt, cause: BaseException) -> None:
    """Write down the failure of this rank, unless another rank of this attempt has failed before.

    The first to fail is the cause; what follows on other ranks is its echo.
    """
    rank, text = attempt.world.rank, described(cause)
    with contextlib.suppress(OSError, SaveError):  # another rank was first, or the disk is gone: the code remains
        make_directory(attempt.record.parent)
        with create(attempt.record) as file:
            of = f"rank {rank} of {attempt.world.world_size} on {os.uname().nodename}"
            file.write(f"hpc: {of} failed first:\n{text}\n".encode(errors="backslashreplace"))
        attempt.journal.write(Failed(rank, code_of(cause), text.splitlines()[-1].removeprefix("hpc: ")))


def leave_if_another_failed(attempt: Attempt) -> None:
    """On SIGTERM: where another rank has failed it is not a preemption, and a save would wait for that rank."""
    if attempt.record.exists():
        os._exit(1)
