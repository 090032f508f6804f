"""Without submitit: the standalone script, and `srun` inside an allocation."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from hpc.run.directory import RunDirectory
from hpc.run.events import Failed, Finished, Started, Stopped
from hpc.run.journal import read_journal
from hpc.run.lives import lives
from hpc.testing.cluster import SlurmCluster
from tests.conftest import ROOT
from tests.support.events import told

pytestmark = pytest.mark.slurm

TRAIN = ("experiment.target=tests.programs.jobs.train", "runtime.device=cpu", "steps=60", "checkpoint.every_steps=50")


def test_the_standalone_script_is_requeued_like_any_other(
    cluster: SlurmCluster, tmp_path: Path, environ: dict[str, str]
) -> None:
    small = ("--ntasks-per-node=2", "--gres=gpu:a100:2", "--cpus-per-task=1", "--mem=2G", "--time=10")
    script = ("slurm_templates/standalone.sbatch", "hardware.tasks_per_node=2", "hardware.gpus_per_node=2")
    trace = f"+job={{step_seconds:0.2,trace:{tmp_path}}}"
    done = cluster.run(
        "sbatch", "--parsable", *small, f"--output={tmp_path}/log", *script, *TRAIN, trace,
        cwd=ROOT, env={**environ, "HPC_RUN_DIR": str(tmp_path / "run")},
    )  # fmt: skip
    job_id = done.stdout.strip()
    deadline = time.monotonic() + 90
    while (
        not (tmp_path / "rank_1.json").exists()
        or json.loads((tmp_path / "rank_1.json").read_text() or "{}").get("step", 0) < 10
    ):
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.1)
    cluster.run("scancel", "--signal=USR2", job_id)  # the time limit's signal: to the step, not to the batch shell
    cluster.wait_for(job_id, "COMPLETED", timeout_seconds=120)
    events = [type(event) for event in read_journal(tmp_path / "run")]
    assert events.count(Started) == 2
    assert events[-1] is Finished
    assert f"hpc: job {job_id} saved its state: requeued." in (tmp_path / "log").read_text()


def test_srun_makes_every_task_a_rank(cluster: SlurmCluster, tmp_path: Path, environ: dict[str, str]) -> None:
    program = (
        "python",
        str(ROOT / "run.py"),
        *TRAIN,
        "+job={}",
        "hardware=cpu",
        "hardware.nodes=2",
        "hardware.tasks_per_node=1",
    )
    cluster.run("srun", "--nodes=2", "--ntasks=2", *program, f"run_dir={tmp_path}/run", timeout=300, env=environ)
    (started,) = told(tmp_path / "run", Started)
    assert (started.source, started.world_size, started.hosts) == ("slurm", 2, ("node1", "node2"))


def test_a_batch_script_without_srun_is_a_world_of_one_with_advice(
    cluster: SlurmCluster, tmp_path: Path, environ: dict[str, str]
) -> None:
    train = f"python {ROOT}/run.py hardware=cpu run_dir={tmp_path}/run {' '.join(TRAIN)} +job={{}}"
    done = cluster.run(
        "sbatch", "--parsable", "--wait", "--ntasks=2", f"--output={tmp_path}/log", "--wrap",
        f"python -m hpc world --json; {train}",
        check=False, timeout=300, env=environ,
    )  # fmt: skip
    assert done.returncode == 78
    log = (tmp_path / "log").read_text()
    assert json.loads(log[: log.rindex("}") + 1])["world"]["world_size"] == 1
    assert "srun" in log
    assert "hardware=cpu must come up as 2 rank(s), but came up as 1" in log
    assert not (tmp_path / "run").exists()


def test_a_script_without_a_task_has_failure_records_and_the_clock(
    cluster: SlurmCluster, tmp_path: Path, environ: dict[str, str]
) -> None:
    """Two steps of one job: a rank of the first fails; the second begins beside its record, and meets the limit."""
    run = tmp_path / "run"
    script = f"srun --kill-on-bad-exit=1 python {ROOT}/tests/programs/by_hand.py {run} 1000000"
    done = cluster.run(
        "sbatch", "--parsable", "--wait", "--ntasks=2", "--time=3", f"--output={tmp_path}/log", "--wrap",
        f"{script} fail 1; {script} slow 0.1",
        check=False, timeout=240, env=environ,
    )  # fmt: skip
    log = (tmp_path / "log").read_text()
    assert done.returncode == 75, log
    job_id = done.stdout.strip()
    first, second = told(run, Started)
    assert (first.attempt[-4:], second.attempt[-4:]) == ("-0.0", "-0.1")
    assert first.attempt.split(".")[1] == f"{job_id}-0"
    failure = lives(told(run, Failed))[0].first_failure
    assert failure is not None
    assert (failure.attempt, failure.rank, failure.reason) == (first.attempt, 1, "ValueError: asked to fail")
    assert [path.name for path in RunDirectory(run).failures.glob("*.txt")] == [f"{first.attempt}.txt"]
    (stop,) = told(run, Stopped)
    assert (stop.attempt, stop.cause) == (second.attempt, "TIME_LIMIT")
    assert [RunDirectory(run).log(rank).exists() for rank in (0, 1)] == [True, True]
