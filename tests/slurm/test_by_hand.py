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
from hpc.testing.faults import Faults
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
    wait_for_step(tmp_path, 10)
    cluster.run("scancel", "--signal=USR2", job_id)  # the time limit's signal: to the step, not to the batch shell
    cluster.wait_for(job_id, "COMPLETED", timeout_seconds=120)
    events = [type(event) for event in read_journal(tmp_path / "run")]
    assert events.count(Started) == 2
    assert events[-1] is Finished
    assert f"hpc: job {job_id} saved its state: requeued." in (tmp_path / "log").read_text()


def wait_for_step(directory: Path, step: int, log: Path | None = None) -> None:
    """Of rank 1, by its trace there; with the output of the job where it does not come."""
    trace, deadline = directory / "rank_1.json", time.monotonic() + 90
    while not trace.exists() or json.loads(trace.read_text()).get("step", 0) < step:
        assert time.monotonic() < deadline, (log or directory / "log").read_text()
        time.sleep(0.1)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("around", "phrase"),
    [
        ("srun --kill-on-bad-exit=1 bash -c '{}; true'", "lost a rank to a signal"),
        ("srun --kill-on-bad-exit=1 bash -c 'trap : TERM USR2; {}; true'", "saved its state"),
        ("srun --kill-on-bad-exit=1 {} | cat", "saved its state"),
    ],
)
def test_a_shell_or_a_pipe_around_the_ranks_ends_nothing_for_good(
    cluster: SlurmCluster, tmp_path: Path, environ: dict[str, str], around: str, phrase: str
) -> None:
    """Fault 15. Where the shell dies of the signal, it is named, and the run goes on from its newest checkpoint."""
    words = ("hardware=cpu", "hardware.nodes=1", "hardware.tasks_per_node=2", *TRAIN, "checkpoint.every_steps=5")
    trace = f"+job.step_seconds=0.2 +job.trace={tmp_path}"
    ranks = around.format(f"python {ROOT}/run.py {' '.join(words)} run_dir={tmp_path}/run {trace}")
    script = (ROOT / "slurm_templates" / "standalone.sbatch").read_text().splitlines(keepends=True)
    lines = [f"{ranks}\n" if line.startswith("srun") else line for line in script if "#SBATCH" not in line]
    (tmp_path / "script").write_text("".join(lines))
    options = ("--ntasks=2", "--mem=2G", "--time=10", "--requeue", "--open-mode=append", f"--output={tmp_path}/log")
    environ = {**environ, "HPC_RUN_DIR": str(tmp_path / "run")}
    job_id = cluster.run(
        "sbatch", "--parsable", *options, str(tmp_path / "script"), cwd=ROOT, env=environ
    ).stdout.strip()
    wait_for_step(tmp_path, 10)
    cluster.run("scancel", "--signal=USR2", job_id)
    cluster.wait_for(job_id, "COMPLETED", timeout_seconds=200)
    log = (tmp_path / "log").read_text()
    assert f"hpc: job {job_id} {phrase}: requeued." in log
    assert ("bash stands between srun and this rank" in log) == ("lost" in phrase)
    assert [type(event) for event in read_journal(tmp_path / "run")].count(Started) == 2
    assert (tmp_path / "run" / "finished.json").exists()


@pytest.mark.faults
def test_a_full_disk_of_logs_stops_no_run(
    cluster: SlurmCluster, faults: Faults, tmp_path: Path, environ: dict[str, str]
) -> None:
    """Fault 67: the job's output lies on another disk than the run, as in a home directory whose quota is used up."""
    words = ("hardware.nodes=1", "hardware.tasks_per_node=2", "hardware.gpus_per_node=0", *TRAIN)
    trace = f"+job={{step_seconds:0.2,trace:{tmp_path}}}"
    log = cluster.small_disk / "log"
    options = ("--ntasks-per-node=2", "--gres=none", "--cpus-per-task=1", "--mem=2G", "--time=10", f"--output={log}")
    job_id = cluster.run(
        "sbatch", "--parsable", *options, "slurm_templates/standalone.sbatch", *words, trace,
        cwd=ROOT, env={**environ, "HPC_RUN_DIR": str(tmp_path / "run")},
    ).stdout.strip()  # fmt: skip
    wait_for_step(tmp_path, 10, log)
    faults.full_disk()
    cluster.run("scancel", "--signal=USR2", job_id)
    cluster.wait_for(job_id, "COMPLETED", timeout_seconds=200)
    assert [type(event) for event in read_journal(tmp_path / "run")].count(Started) == 2
    assert (tmp_path / "run" / "finished.json").exists()


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
