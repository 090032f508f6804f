"""Why did a point fail? One kind, which `hpc retry --cause` names, and one phrase."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpc.errors import ConfigurationError, DivergedError, DriftError, LoadError, NoProgressError, SaveError
from hpc.run.events import Failed
from hpc.slurm.queue import QueuedJob

CRASH, OOM, UNKNOWN = "crash", "oom", "unknown"
OF_CODE = {
    ConfigurationError.exit_code: "configuration",
    SaveError.exit_code: "save",
    LoadError.exit_code: "load",
    NoProgressError.exit_code: "no_progress",
    DivergedError.exit_code: "diverged",
    DriftError.exit_code: "drift",
}
"""What the exit codes of our own errors say; every other code is a crash of the training function."""
OUT_OF_MEMORY = re.compile(r"OutOfMemoryError|out of memory|MemoryError|Cannot allocate memory|can't allocate memory")
"""As torch, CUDA, Python and the operating system spell it."""
OF_STATE = {
    "NODE_FAIL": ("node_fail", "a node failed"),
    "OUT_OF_MEMORY": (OOM, "the job was killed because it used more host memory than it asked for"),
    "TIMEOUT": ("time_limit", "the time limit came before the run had saved and left"),
    "DEADLINE": ("time_limit", "its deadline came"),
    "PREEMPTED": ("preempted", "it was preempted, and not requeued"),
    "BOOT_FAIL": ("node_fail", "its nodes could not be booted"),
    "LAUNCH_FAILED": ("node_fail", "it could not be launched on its nodes"),
    "FAILED": (CRASH, "the job ended with an error"),
}
"""How Slurm calls an end that a run itself had no time to tell of."""
OF_LOG = (
    (re.compile(r"oom.kill", re.IGNORECASE), "OUT_OF_MEMORY"),
    (re.compile(r"DUE TO NODE.FAIL"), "NODE_FAIL"),
    (re.compile(r"DUE TO TIME LIMIT"), "TIMEOUT"),
    (re.compile(r"DUE TO PREEMPTION"), "PREEMPTED"),
)
"""What slurmstepd and srun write at the end of a job's output, and which state that is."""
KINDS = tuple(sorted({*OF_CODE.values(), *(kind for kind, _ in OF_STATE.values()), UNKNOWN}))


@dataclass(frozen=True)
class Cause:
    """Why a point failed.

    Args:
        kind: One of KINDS.
        text: A phrase.
        rank: Which rank failed first; None where none could tell.
        code: Its exit code; None likewise.
    """

    kind: str
    text: str
    rank: int | None = None
    code: int | None = None


def cause_of(failure: Failed) -> Cause:
    """What the first rank to fail told."""
    ours = OF_CODE.get(failure.code, CRASH)
    kind = OOM if ours == CRASH and OUT_OF_MEMORY.search(failure.reason) else ours
    return Cause(kind, failure.reason or f"exit code {failure.code}", failure.rank, failure.code)


def cause_of_end(queued: QueuedJob | None, log: str) -> Cause | None:
    """What Slurm says of a job's end: its state while the controller remembers it, else the end of its output.

    Returns:
        None where neither says anything.
    """
    states = [queued.state] if queued is not None and queued.state != "FAILED" else []
    states += [state for pattern, state in OF_LOG if pattern.search(log)]
    states += [queued.state] if queued is not None else []
    return next((Cause(*OF_STATE[state]) for state in states if state in OF_STATE), None)
