"""Another user on rank 0's node, who was there before the job and pretends to be its rank 0."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from hpc.testing.cluster import SlurmCluster
from hpc.testing.network import NAMESPACES
from tests.conftest import ROOT
from tests.support.strangers import stranger, why_there_is_none

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(why_there_is_none()), reason=why_there_is_none())]


def test_ranks_meet_past_a_stranger_who_was_there_first(
    cluster: SlurmCluster, tmp_path: Path, environ: dict[str, str]
) -> None:
    program = ROOT / "tests" / "programs" / "meeting.py"
    rank = shlex.join([sys.executable, str(program), str(tmp_path), json.dumps({"timeout_seconds": 60})])
    place = ("--nodes=2", "--ntasks=2", "--nodelist=node1,node2", "--mem=1G", "--time=5")
    met = f"grep -q 'is passed over' {shlex.quote(str(tmp_path / 'log'))}"
    first = f"test $SLURM_PROCID != 0 || until {met}; do sleep 0.2; done"  # else rank 1 may find rank 0 before
    step = shlex.join(["srun", "--label", "bash", "-c", f"{first}; exec {rank}"])
    log = (f"--output={tmp_path}/log", "--wrap", step)
    job = cluster.run("sbatch", "--parsable", "--hold", *place, *log, env=environ).stdout.strip()
    hosts = (cluster.directory / "etc" / "hosts").read_text().splitlines()
    (address,) = (line.split()[0] for line in hosts if line.split()[1:] == ["node1"])
    inside = ("nsenter", f"--net={NAMESPACES}/{cluster.name}-node1")
    with stranger("pretend", address, f"{cluster.name}.{job}.0", os.getuid(), 5, place=inside):
        cluster.run("scontrol", "release", job)
        cluster.wait_for(job, "COMPLETED", timeout_seconds=150)
    seen = sorted(
        (json.loads(path.read_text()) for path in tmp_path.glob("*.json")), key=lambda each: int(each["rank"])
    )
    greetings = [f"{cluster.name}.{job}.0 0 {rank}" for rank in (0, 1)]
    assert [each.get("greetings") for each in seen] == [greetings] * 2, seen
    assert f"says that it is rank 0 of {cluster.name}.{job}.0 and is passed over" in (tmp_path / "log").read_text()
    assert seen[0]["listens"] == [address]  # neither loopback nor another network
