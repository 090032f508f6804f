"""One cluster for all tests of a session, and the rule for machines that cannot run one."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT, clean_environment
from tests.slurm.cluster import SlurmCluster
from tests.slurm.requirements import reason_no_cluster_starts_here, skip_or_fail_without_slurm

if TYPE_CHECKING:
    from collections.abc import Iterator

reason_found_once = functools.cache(reason_no_cluster_starts_here)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Ask before any fixture starts a cluster."""
    if item.get_closest_marker("slurm"):
        skip_or_fail_without_slurm(item.name, reason_found_once(), os.environ)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Four nodes with eight pretended A100 each, shared by all tests of the session."""
    with SlurmCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="session")
def environ(cluster: SlurmCluster) -> dict[str, str]:
    """Of a person on the login node who has activated the project's virtual environment."""
    path = f"{Path(sys.executable).parent}:{cluster.environment['PATH']}"
    return {**clean_environment(), **cluster.environment, "PATH": path, "PYTHONPATH": str(ROOT)}
