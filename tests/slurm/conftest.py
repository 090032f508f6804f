"""One cluster for all tests of a session, and the rule for machines that cannot run one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hpc.testing.plugin import why_no_slurm_here
from hpc.testing.requirements import skip_or_fail_without_slurm
from tests.conftest import ROOT, clean_environment

if TYPE_CHECKING:
    from hpc.testing.cluster import SlurmCluster


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Ask before any fixture starts a cluster."""
    if item.get_closest_marker("slurm"):
        skip_or_fail_without_slurm(item.name, why_no_slurm_here(), os.environ)


@pytest.fixture(scope="session")
def cluster(slurm: SlurmCluster) -> SlurmCluster:
    """Four nodes with eight pretended A100 each, shared by all tests of the session: the plugin's."""
    return slurm


@pytest.fixture(scope="session")
def environ(cluster: SlurmCluster) -> dict[str, str]:
    """Of a person on the login node who has activated the project's virtual environment."""
    path = f"{Path(sys.executable).parent}:{cluster.environment['PATH']}"
    return {**clean_environment(), **cluster.environment, "PATH": path, "PYTHONPATH": str(ROOT)}
