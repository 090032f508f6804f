"""Where may a save, or a submission, be cut short?

A test names one of these places, and the process is killed when it gets there.

HPC_FAILPOINT=<name>[:<rank>[:<hit>]]: this rank (0 by default) is killed when it passes for the <hit>-th time (first).
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from hpc.environ import process_environ

NAMES = (
    "begun",
    "in_file",
    "file_flushed",
    "written",
    "gathered",
    "manifest_flushed",
    "fence_checked",
    "renamed",
    "committed",
    "pruning",
    "told",
)
"""In the order a save passes them."""
SUBMISSIONS = ("claimed", "frozen", "extended", "called", "queued", "noted")
"""In the order a submission passes them, as its one process, which counts as rank 0."""
EVERYWHERE = ("begun", "in_file", "file_flushed", "written", "gathered", "told")
"""Those that every rank passes; rank 0 is alone at the others."""


@dataclass
class Failpoint:
    """One place to die at.

    Args:
        name: One of NAMES or SUBMISSIONS.
        rank: Whose passages count.
        hits_left: The passage that brings this to 0 is the last.
    """

    name: str
    rank: int
    hits_left: int

    def passed(self, name: str, rank: int) -> None:
        """Die, if this is the place."""
        if (name, rank) == (self.name, self.rank):
            self.hits_left -= 1
            if not self.hits_left:
                os.kill(os.getpid(), signal.SIGKILL)


def parsed(text: str) -> Failpoint | None:
    """What the environment asks for; None when it asks for nothing."""
    name, rank, hit = (*text.split(":"), "", "")[:3]
    return Failpoint(name, int(rank or 0), int(hit or 1)) if name else None


ARMED = parsed(process_environ().get("HPC_FAILPOINT", ""))


def failpoint(name: str, rank: int) -> None:
    """A transition of the protocol of a save, or of a submission."""
    if ARMED is not None:
        ARMED.passed(name, rank)
