"""What a job of several points does with their steps, told by a shell with an srun that does what it is told."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from hpc.config import Cluster, Hardware, settings_of
from hpc.errors import ConfigurationError
from hpc.run.submissions import Submission, newest_jobs, record_cancelled, record_submission
from hpc.submit.pack import times
from hpc.submit.plan import Plan
from hpc.submit.script import script

SRUN = """#!/bin/sh
for word; do point=$last; last=$word; done  # ... SWEEP POINT WRITERS
echo "$point" >>"$STUB/started"
exit "$(cat "$STUB/code-$point" 2>/dev/null || echo 0)"
"""
SCONTROL = """#!/bin/sh
echo "$*" >>"$STUB/asked"
echo "JobId=9 JobState=RUNNING Restarts=0 Reason=None PreemptTime=None"
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A directory with a script for points 0 to 4, three to a job, and the programs that it calls."""
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    hardware = Hardware(tasks_per_node=2, memory_gb=3, gpus_per_node=2, cpus_per_task=4)
    plan = Plan(
        tmp_path / "s", "mine", tuple("01234"), times(hardware, 3), Cluster(gres="gpu:{gpus_per_node}"), 2,
        per_job=3, of_point=hardware,
    )  # fmt: skip
    (tmp_path / "s" / "submitit").mkdir(parents=True)
    (tmp_path / "script.sh").write_text(script(plan))
    record_submission(tmp_path / "s", Submission("9", plan.points, 1.0, is_array=True, per_job=3))
    return tmp_path


def run(job: Path, task: int, **codes: int) -> tuple[int, list[str], list[str]]:
    """The exit code of the job, the points whose steps were started, and what was asked of the controller."""
    for name, code in codes.items():
        (job / f"code-{name.lstrip('_')}").write_text(str(code))
    for name in ("started", "asked"):
        (job / name).write_text("")
    environ = {"PATH": f"{job / 'bin'}:{os.environ['PATH']}", "STUB": str(job), "SLURM_CLUSTER_NAME": "linux"}
    environ |= {"SLURM_JOB_ID": "10", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": str(task)}
    done = subprocess.run(["bash", str(job / "script.sh")], env=environ, check=False, capture_output=True, text=True)
    assert "command not found" not in done.stderr
    return done.returncode, sorted((job / "started").read_text().split()), (job / "asked").read_text().splitlines()


def finish(job: Path, point: str) -> None:
    (job / "s" / point).mkdir(exist_ok=True)
    (job / "s" / point / "finished.json").write_text("{}")


def test_a_job_asks_for_so_many_points_and_each_step_for_one(job: Path) -> None:
    text = (job / "script.sh").read_text()
    for words in ("--array=0-1%2", "--ntasks-per-node=6", "--mem=9G", "--gres=gpu:6", "--cpus-per-task=4"):
        assert f"#SBATCH {words}\n" in text
    (line,) = (line for line in text.splitlines() if line.lstrip().startswith("srun "))
    for words in ("--exact", "--ntasks=2", "--mem=3G", "--gres=gpu:2", "--cpus-per-task=4"):
        assert f" {words} " in line


def test_every_point_of_a_job_is_started_and_its_worst_end_is_the_jobs(job: Path) -> None:
    for point in "134":
        finish(job, point)
        (job / "s" / point / "finished.json").unlink()
    assert run(job, 1)[1] == ["3", "4"]
    assert run(job, 0, _0=78, _2=79)[:2] == (79, ["0", "1", "2"])


def test_one_that_wants_to_go_on_takes_only_the_unfinished_with_it(job: Path) -> None:
    code, started, asked = run(job, 0, _0=78, _1=75, _2=75)
    assert (code, started) == (75, ["0", "1", "2"])
    assert [line for line in asked if line.startswith("requeue")] == ["requeue 9_0"]
    finish(job, "2")
    code, started, _ = run(job, 0, _1=0)
    assert (code, started) == (78, ["1"])


def test_who_was_cancelled_or_sent_again_is_left_out(job: Path) -> None:
    record_cancelled(job / "s", ["9_0.1"])
    record_submission(job / "s", Submission("11", ("2",), 2.0))
    assert run(job, 0)[:2] == (0, ["0"])
    assert {point: held.id for point, held in newest_jobs(job / "s").items()} == {
        "0": "9_0.0", "1": "9_0.1", "2": "11", "3": "9_1.0", "4": "9_1.1"
    }  # fmt: skip
    assert json.loads((job / "s" / "submissions.jsonl").read_text().splitlines()[0])["per_job"] == 3


@pytest.mark.parametrize(
    ("hardware", "words"),
    [({"nodes": 2}, "hardware.nodes is 2"), ({"memory_gb": 0}, "hardware.memory_gb is 0")],
)
def test_what_cannot_be_shared_is_refused(hardware: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"launch.per_job must be 1 for these points, but is 2: {words}"):
        settings_of({"experiment": {"target": "a.b"}, "hardware": hardware, "launch": {"per_job": 2}})
