"""hpc doctor on real clusters: one that is well, with a canary in it, and one that breaks many promises at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpc.testing.cluster import ClusterOptions, SlurmCluster
from tests.conftest import ROOT, clean_environment

pytestmark = pytest.mark.slurm

EXTRA = ("RequeueExit=75", "JobRequeue=0", "KillWait=30", "MaxJobCount=50", "OverTimeLimit=UNLIMITED")


def doctor(cluster: SlurmCluster, cwd: Path, *arguments: str) -> tuple[int, dict[tuple[str, str], list[Any]]]:
    """Its exit code, and level and text of every finding by what it is about and its check."""
    done = subprocess.run(
        [sys.executable, "-m", "hpc", "doctor", "--json", *arguments],
        cwd=cwd, env={**clean_environment(), **cluster.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["cluster"] == cluster.name, done.stderr
    found: dict[tuple[str, str], list[Any]] = {}
    for each in answer["findings"]:
        found.setdefault((each["about"], each["check"]), []).append((each["level"], each["text"]))
    return done.returncode, found


def test_a_canary_proves_the_promises_in_its_allocation(cluster: SlurmCluster, tmp_path: Path) -> None:
    code, found = doctor(cluster, tmp_path, "--canary", "hardware=cpu", "hardware.nodes=2")
    of_job = {check: each for (about, check), each in found.items() if about == "job"}
    assert code == 0, found
    assert {level for each in of_job.values() for level, _ in each} <= {"ok", "note"}
    assert of_job["ranks"][0][1].startswith("4 rank(s) on 2 node(s): node")
    assert "SIGUSR2 reached Python" in of_job["signal"][0][1]
    assert "The job was requeued, and went on at step" in of_job["requeue"][0][1]
    assert {"shared_files", "exclusive_files", "devices", "clock", "shared_memory", "all_reduce"} <= {*of_job}


def test_every_promise_that_a_cluster_breaks_is_told(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    options = ClusterOptions(nodes=2, accounting=False, max_array_size=11, extra_conf=EXTRA)
    with SlurmCluster(tmp_path_factory.mktemp("broken"), options) as broken:
        broken.run("scontrol", "update", "nodename=node1", "state=down", "reason=test")
        broken.run("scontrol", "update", "partitionname=high", "state=down")
        broken.run("scontrol", "update", "partitionname=low", "preemptmode=cancel")
        code, found = doctor(broken, tmp_path)
    assert code == 1
    levels = {key: [level for level, _ in each] for key, each in found.items()}
    assert levels["cluster", "requeue_exit"] == ["problem"]
    assert levels["cluster", "requeue_floor"] == ["problem"]
    assert levels["cluster", "job_count"] == ["note"]
    assert "but ours are sent with --requeue" in found["cluster", "requeue"][0][1]
    assert "below 11" in found["cluster", "array_size"][0][1]
    assert "UNLIMITED" in found["cluster", "over_time_limit"][0][1]
    assert "no sacct" in found["cluster", "accounting"][0][1]
    assert levels["partition high", "state"] == ["problem"]
    assert found["partition low", "state"] == [("note", "1 of 2 node(s) work.")]
    assert "note" in levels["partition low", "preemption"]
    assert "8 a100 on a node." in found["partition low", "gpus"][0][1]
