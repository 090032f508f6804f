"""Which mpiexec started this process? MPICH's puts nothing into the environment that two of them do not share.

Every process of its ranks descends from a proxy that was started with `--control-port HOST:PORT`, where that mpiexec
listens: the same words on all of its nodes, and nobody else's for as long as it lives (MPICH 4.0.2, hydra).
"""

from __future__ import annotations

import contextlib

SOURCES = ("mpich", "mvapich2")
"""Launchers of `hpc world` that are hydra and give no identity."""

OPTION = "--control-port"


def control_port() -> str:
    """The address of the mpiexec above this process; empty where there is none, or where it is not ours to see."""
    import psutil  # deferred: 20 ms that only hydra's ranks need

    with contextlib.suppress(psutil.Error):
        for ancestor in psutil.Process().parents():
            words = ancestor.cmdline()
            if OPTION in words[:-1]:
                return str(words[words.index(OPTION) + 1])
    return ""
