"""A project that `hpc init project` has written trains on a cluster as it stands, and is reported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.run.submissions import newest_jobs
from hpc.testing.cluster import SlurmCluster
from tests.report.test_page import data_of

pytestmark = pytest.mark.slurm


def test_a_new_project_trains_on_the_cluster(cluster: SlurmCluster, environ: dict[str, str], tmp_path: Path) -> None:
    def hpc(*arguments: str, cwd: Path = tmp_path / "mine") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "hpc", *arguments],
            cwd=cwd, env=environ, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    hpc("init", "project", "mine", cwd=tmp_path)
    hpc("run", "--config-path", "conf", "-m", "hardware=cpu", "cluster=slurm", "optimizer.lr=3e-3,1e-2", "run_dir=out")
    sweep = tmp_path / "mine" / "out"
    for job in newest_jobs(sweep).values():
        cluster.wait_for(job.id, "COMPLETED", timeout_seconds=400)
    values = [json.loads((sweep / name / "finished.json").read_text())["value"] for name in "01"]
    assert max(values) < 0.1
    hpc("report", "out")
    data = data_of((sweep / "report.html").read_text())
    assert [row[data["table"]["columns"].index("state")] for row in data["table"]["rows"]] == ["finished"] * 2
    assert "kWh" not in data["table"]["columns"]  # this Slurm keeps accounts, and measures no energy
    kinds = {trace["name"] for trace in data["timelines"][0]["data"]}
    assert {"queued", "start-up", "productive"} <= kinds
