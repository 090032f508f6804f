"""Can a real Slurm be started on this machine, and what becomes of the tests that need one where it cannot?"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hpc.testing.configuration import CONTROLLER
from hpc.testing.network import Network

if TYPE_CHECKING:
    from collections.abc import Mapping

INSTALL = Path(__file__).with_name("install.sh")
PROGRAMS = (
    *("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd"),
    *("sbatch", "srun", "scancel", "scontrol", "sinfo", "squeue", "sacct", "sacctmgr"),
    *("ip", "nsenter", "unshare", "mount", "hostname"),
)
"""What install.sh puts on a machine, and what every Debian has."""


def reason_no_cluster_starts_here() -> str | None:
    """Why this machine cannot run a `SlurmCluster`, as one sentence; None where it can."""
    if os.geteuid() != 0:
        return "A real Slurm needs root, for network namespaces and device files: run the tests as root."
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"A real Slurm needs {missing[0]} (and {len(missing) - 1} more) on PATH: run `sh {INSTALL}`."
    probe = Network(CONTROLLER, ())
    try:
        probe.open()
    except RuntimeError as error:
        return f"A real Slurm needs network namespaces, which are refused here: {error}"
    finally:
        probe.close()
    return None


def skip_or_fail_without_slurm(test: str, reason: str | None, environ: Mapping[str, str]) -> None:
    """Skip a test that needs a cluster where none can be started; in continuous integration fail it.

    Args:
        test: The test's name. It is part of the message, because pytest's summary names tests of equal reason
            only by their number.
        reason: Why no cluster starts here; None does nothing.
        environ: Where CI=true, as every hosted service sets it, says that a skip would go unseen.

    Raises:
        Skipped: pytest's own.
        Failed: pytest's own, where CI=true.
    """
    if reason is None:
        return
    if environ.get("CI") == "true":
        pytest.fail(f"{test}: {reason}", pytrace=False)
    pytest.skip(f"{test}: {reason}")
