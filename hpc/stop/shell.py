"""Does a shell stand between srun and this rank? Slurm signals both, and a shell that dies of it takes the rank along.

slurmstepd ends a task as soon as the process that it has started is gone. `srun bash -c "python train.py; date"` starts
a shell that waits for the rank, and a shell of which nobody has said otherwise dies of SIGTERM and SIGUSR2 at once.
"""

from __future__ import annotations

import signal
from pathlib import Path

from hpc.say import warn

SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "csh", "tcsh", "fish"}
SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


def warn_of_shell_in_between() -> None:
    """Say so, and what to write instead."""
    if shell := shell_in_between():
        warn(
            f"{shell} stands between srun and this rank and dies of the signal that asks for a save, whereupon Slurm "
            f"ends the rank before it has saved: write `exec python ...` as the last command of {shell} -c, or begin "
            "it with `trap : TERM USR2`."
        )


def shell_in_between() -> str:
    """The name of such a shell that is this process's parent; "" where there is none, or where it heeds the signals."""
    import psutil  # deferred: 20 ms that only ranks of Slurm need

    try:
        parent = psutil.Process().parent()
        step = parent and parent.parent()
        if not parent or not step or parent.name() not in SHELLS or not step.name().startswith("slurmstepd"):
            return ""
        return "" if _heeds(parent.pid) else parent.name()
    except (psutil.Error, OSError):  # it is another user's, or /proc shows nobody else
        return ""


def _heeds(pid: int) -> bool:
    """Whether a process ignores or catches all of SIGNALS: bit n-1 of these masks stands for signal n (proc(5))."""
    masks = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    heeded = int(masks["SigIgn"], 16) | int(masks["SigCgt"], 16)
    return all(heeded >> (number - 1) & 1 for number in SIGNALS)
