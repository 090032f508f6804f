"""What a real Slurm refuses reaches the user as one sentence, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.testing.cluster import ClusterOptions, SlurmCluster
from tests.conftest import Run

pytestmark = pytest.mark.slurm


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hardware=8xH100"], "hardware=8xH100 must fit partition low, but asks for 1 node(s) with 8 h100 GPUs"),
        (["hardware=cpu", "hardware.nodes=5"], "but asks for 5 node(s)"),
        (["hardware=cpu", "hardware.memory_gb=900"], "and 900 GB each"),
        (["hardware=cpu", "cluster.partition=nowhere"], "cluster.partition must be one of low, high, but is nowhere"),
        (["hardware=cpu", "+cluster.sbatch.reservation=friday"], "reservation"),
        (["hardware=cpu", "+cluster.sbatch.no-such-option=1"], "unrecognized option"),
    ],
)
def test_a_job_that_cannot_be_is_refused_and_leaves_nothing(
    run_py: Run, cluster: SlurmCluster, tmp_path: Path, arguments: list[str], words: str
) -> None:
    jobs = set(cluster.run("squeue", "--noheader", "--format=%i").stdout.split())
    done = run_py("-m", *arguments, "run_dir=runs/out", environ=cluster.environment)
    assert done.returncode == 78
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
    assert set(cluster.run("squeue", "--noheader", "--format=%i").stdout.split()) <= jobs


@pytest.fixture(scope="module")
def strict_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """One node, and accounts that are looked at: root may have two jobs in account `lab`."""
    options = ClusterOptions(nodes=1, extra_conf=("AccountingStorageEnforce=limits",))
    with SlurmCluster(tmp_path_factory.mktemp("strict"), options) as running:
        running.run("sacctmgr", "--immediate", "add", "account", "lab")
        running.run("sacctmgr", "--immediate", "add", "user", "root", "account=lab", "MaxSubmitJobs=2")
        yield running


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cluster.account=nobody"], "Invalid account or account/partition combination specified"),
        (["cluster.account=lab", "seed=0,1,2"], "Job violates accounting/QOS policy"),
    ],
)
def test_the_words_of_a_refusing_sbatch_reach_the_user(
    run_py: Run, strict_cluster: SlurmCluster, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = run_py("-m", "hardware=cpu", *arguments, "run_dir=runs/out", environ=strict_cluster.environment)
    assert done.returncode == 78
    ours = done.stderr.splitlines()[-1]
    assert ours.startswith("hpc: sbatch refused the job, and nothing was submitted: ")
    assert words in ours
    assert strict_cluster.run("squeue", "--noheader").stdout == ""
    assert not (tmp_path / "runs").exists()
