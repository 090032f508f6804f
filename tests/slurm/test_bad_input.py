"""What a real Slurm refuses reaches the user as one sentence, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Run
from tests.slurm.cluster import SlurmCluster

pytestmark = pytest.mark.slurm


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hardware=8xH100"], "hardware=8xH100 must fit partition low, but asks for 1 node(s) with 8 h100 GPUs"),
        (["hardware=cpu", "hardware.nodes=5"], "but asks for 5 node(s)"),
        (["hardware=cpu", "hardware.memory_gb=900"], "and 900 GB each"),
        (["hardware=cpu", "cluster.partition=nowhere"], "cluster.partition must be one of low, high, but is nowhere"),
        (["hardware=cpu", "cluster.qos=nobody"], "Invalid qos specification"),
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
