"""The fixtures that pytest finds by itself where hpc is installed (entry point `pytest11`).

It costs a test run nothing where no fixture of it is asked for: what it needs is imported by the first one that is.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hpc.testing.cluster import ClusterOptions, SlurmCluster
    from hpc.testing.faults import Faults


@functools.cache
def why_no_slurm_here() -> str | None:
    """Why this machine cannot run a Slurm, as one sentence; asked of the machine once."""
    from hpc.testing.requirements import (
        reason_no_cluster_starts_here,  # deferred: costs users of other fixtures nothing
    )

    return reason_no_cluster_starts_here()


@pytest.fixture(scope="session")
def slurm_options() -> ClusterOptions:
    """How big the cluster of `slurm` is; define a fixture of this name in conftest.py for another one."""
    from hpc.testing.configuration import ClusterOptions  # deferred: as above

    return ClusterOptions()


@pytest.fixture(scope="session")
def slurm(slurm_options: ClusterOptions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A running Slurm for all tests of the session; they are skipped, in CI they fail, where there can be none."""
    from hpc.testing.cluster import SlurmCluster  # deferred: as above
    from hpc.testing.requirements import skip_or_fail_without_slurm  # deferred: as above

    skip_or_fail_without_slurm("slurm", why_no_slurm_here(), os.environ)
    with SlurmCluster(tmp_path_factory.mktemp("slurm"), slurm_options) as running:
        yield running


@pytest.fixture
def faults(slurm: SlurmCluster) -> Iterator[Faults]:
    """All faults; what they did to the cluster is undone when the test ends."""
    from hpc.testing.faults import Faults  # deferred: as above

    with Faults(slurm) as possible:
        yield possible


def _fixture(name: str) -> Callable[..., object]:
    def fault(faults: Faults) -> object:
        return getattr(faults, name)

    fault.__doc__ = f"See `hpc.testing.faults.Faults.{name}`."
    return pytest.fixture(name=name)(fault)


preempt = _fixture("preempt")
signal_rank = _fixture("signal_rank")
kill_rank = _fixture("kill_rank")
stop_rank = _fixture("stop_rank")
time_limit = _fixture("time_limit")
node_down = _fixture("node_down")
slurmd_kill = _fixture("slurmd_kill")
network_cut = _fixture("network_cut")
controller_restart = _fixture("controller_restart")
full_disk = _fixture("full_disk")
