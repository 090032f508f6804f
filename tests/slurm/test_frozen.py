"""A job runs what was submitted, however often it is requeued and whatever becomes of the files meanwhile."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hpc.run.events import Resumed, Started, Stopped
from hpc.testing.cluster import SlurmCluster
from tests.conftest import ROOT
from tests.slurm.submitted import preempt, submitted_from

pytestmark = pytest.mark.slurm

TRAIN = """
import json, os
from pathlib import Path
from torch.utils.data import get_worker_info
from mine.value import VALUE
from tests.programs import jobs

def train(cfg):
    answer = {"value": VALUE, "seed": cfg.seed, "file": __file__, "cwd": os.getcwd()}
    with (Path(cfg.job.trace).parent / f"answers_{os.environ['SLURM_PROCID']}").open("a") as file:
        file.write(json.dumps(answer) + "\\n")
    return jobs.train(cfg)
"""


def project(root: Path) -> None:
    """A person's own repository: a package, and a configuration that builds on ours."""
    (root / "mine").mkdir(parents=True)
    (root / "mine" / "__init__.py").touch()
    (root / "mine" / "train.py").write_text(TRAIN)
    (root / "mine" / "value.py").write_text("VALUE = 'submitted'\n")
    shutil.copytree(ROOT / "conf", root / "conf")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "one"]):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True)


def edit(root: Path, number: int) -> None:
    """What people do while their jobs wait."""
    (root / "mine" / "value.py").write_text(f"VALUE = 'edit {number}'\n" if number == 1 else "raise SystemExit(3)\n")
    config = root / "conf" / "config.yaml"
    config.write_text(re.sub(r"^seed: \d+$", f"seed: {10 + number}", config.read_text(), flags=re.MULTILINE))


def test_a_job_requeued_twice_runs_the_code_and_the_config_of_its_submission(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    root, directory = tmp_path / "project", tmp_path / "run"
    project(root)
    job = submitted_from(
        root, cluster, directory,
        "-m", "--config-path=conf", "hardware=cpu", "hardware.nodes=2", "hardware.tasks_per_node=1",
        "hardware.time_limit_minutes=10", "experiment.target=mine.train.train", "checkpoint.every_steps=50",
        "steps=120", "+job={step_seconds:0.1,workers:1,trace:'${run_dir}/trace'}",
    )  # fmt: skip
    try:
        for number, step in enumerate((20, 70), start=1):
            edit(root, number)
            job.wait_for_step(step)
            preempt(job)
            job.wait_for("PENDING", seconds=200)
        job.wait_for("COMPLETED")
    finally:
        cluster.run("scancel", job.job_id, check=False)
    assert int(cluster.job(job.job_id)["Restarts"]) == 2
    for rank in range(2):
        answers = [json.loads(line) for line in (job.point() / f"answers_{rank}").read_text().splitlines()]
        assert [(each["value"], each["seed"], each["cwd"]) for each in answers] == [("submitted", 0, str(root))] * 3
        assert not any(each["file"].startswith(str(root)) for each in answers)
    assert len(job.events(Resumed)) == 1 + len(job.events(Stopped)) == 3
    starts = job.events(Started)
    assert len({each.tree for each in starts}) == 1
    assert starts[0].tree
    assert "results may differ" not in job.output()
