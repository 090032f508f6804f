"""Why did an attempt fail? One kind, which `hpc retry --cause` names, and one phrase."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from hpc.attempt.statement import Statement
from hpc.attempt.words import memory_of
from hpc.errors import ConfigurationError, DivergedError, DriftError, LoadError, NoProgressError, SaveError

CRASH, OOM, KILLED, HANG, NODE_FAIL, UNKNOWN = "crash", "oom", "killed", "hang", "node_fail", "unknown"
OF_CODE = {
    ConfigurationError.exit_code: "configuration",
    SaveError.exit_code: "save",
    LoadError.exit_code: "load",
    NoProgressError.exit_code: "no_progress",
    DivergedError.exit_code: "diverged",
    DriftError.exit_code: "drift",
}
"""What the exit codes of our own errors say; every other code is a crash of the training function."""
OF_STATE = {
    "NODE_FAIL": (NODE_FAIL, "a node failed"),
    "OUT_OF_MEMORY": (OOM, "the job was killed because it used more host memory than it asked for"),
    "TIMEOUT": ("time_limit", "the time limit came before the run had saved and left"),
    "DEADLINE": ("time_limit", "its deadline came"),
    "PREEMPTED": ("preempted", "it was preempted, and not requeued"),
    "BOOT_FAIL": (NODE_FAIL, "its nodes could not be booted"),
    "LAUNCH_FAILED": (NODE_FAIL, "it could not be launched on its nodes"),
    "FAILED": (CRASH, "the job ended with an error"),
}
"""How Slurm calls an end that a run itself had no time to tell of."""
KINDS = tuple(sorted({*OF_CODE.values(), *(kind for kind, _ in OF_STATE.values()), KILLED, HANG, UNKNOWN}))


@dataclass(frozen=True)
class Cause:
    """Why a point failed.

    Args:
        kind: One of KINDS.
        text: A phrase.
        rank: Which rank failed first; None where none could tell.
        code: Its exit code; None likewise.
        host: Its node; "" where that is not known.
        ranks: All ranks that failed alike, where one cannot be said to have been first.
        exception: The type of its exception; "" where it had none.
        signal: Of the signal that ended it, as SIGKILL; "" where none did.
        memory: Whose memory was short: cgroup, host or CUDA; "" where none was.
        step: The step that the rank was in; None where that is not known.
        phase: What it did; "" likewise.
        told_by: Who says so: the rank itself, whoever watched it ("exit"), Slurm, or the others' waiting ("echo").
    """

    kind: str
    text: str
    rank: int | None = None
    code: int | None = None
    host: str = ""
    ranks: tuple[int, ...] = ()
    exception: str = ""
    signal: str = ""
    memory: str = ""
    step: int | None = None
    phase: str = ""
    told_by: str = ""


def kind_of(code: int, reason: str) -> str:
    """What a rank that left with this code and reason failed of."""
    ours = OF_CODE.get(code, CRASH)
    return OOM if ours == CRASH and memory_of(reason) else ours


def cause_told(told: Statement, alike: Sequence[int] = ()) -> Cause:
    """The cause as the rank itself told it.

    Args:
        told: Its statement.
        alike: All ranks that failed in the same way at the same time, this one included.
    """
    words = "\n".join([told.reason, *told.chain])
    kind = kind_of(told.code, words)
    return Cause(
        kind=kind,
        text=told.reason or f"exit code {told.code}",
        rank=told.rank,
        code=told.code,
        host=told.host,
        ranks=tuple(alike),
        exception=told.exception,
        memory=memory_of(words) if kind == OOM else "",
        step=told.step,
        phase=told.phase,
        told_by="rank",
    )


def signal_name(code: int) -> str:
    """SIGKILL for 137; "" for a code that means no signal."""
    try:
        return signal.Signals(code - 128).name if code > 128 else ""
    except ValueError:
        return ""
