"""Which mpiexec started this process? Two mpiexec of MPICH in one job set the same environment variables.

But every rank descends from a proxy that was started with `--control-port HOST:PORT`, where its mpiexec listens. That
is the same on all nodes, and no other mpiexec has it while this one runs (MPICH 4.0.2, hydra).
"""

from __future__ import annotations

import contextlib

SOURCES = ("mpich", "mvapich2")
"""Launchers in the table that are MPICH's hydra, and whose variables do not name the one mpiexec."""

OPTION = "--control-port"


def control_port() -> str:
    """The address of the mpiexec that started this process; empty where there is none, or where it may not be seen."""
    import psutil  # deferred: 20 ms that only hydra's ranks need

    with contextlib.suppress(psutil.Error):
        for ancestor in psutil.Process().parents():
            words = ancestor.cmdline()
            if OPTION in words[:-1]:
                return str(words[words.index(OPTION) + 1])
    return ""
