"""Whole lives of real processes on this machine: stopped, killed, failed, resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from hpc.run.events import Failed, Started, Stopped
from hpc.run.journal import read_journal
from tests.conftest import ROOT, Run, clean_environment
from tests.support.equality import differences
from tests.support.events import told

JOB = ("experiment.target=tests.programs.jobs.train", "checkpoint.every_steps=25", "runtime.deterministic=true")
pytestmark = pytest.mark.gloo


@dataclass
class Life:
    """One `python run.py -m cluster=local` under way.

    Args:
        directory: Of its only point.
        trace: Where each rank says which process it is and how far.
        process: The submitting process, which waits.
    """

    directory: Path
    trace: Path
    process: subprocess.Popen[str]
    output: str = field(default="")

    def rank(self, number: int) -> dict[str, int]:
        """What a rank last said."""
        return dict(json.loads((self.trace / f"rank_{number}.json").read_text()))

    def wait_for_step(self, step: int, rank: int = 0, seconds: float = 240) -> None:
        """Return once a rank has reached a step."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.rank(rank)["step"] >= step:
                    return
            except (OSError, ValueError):
                pass
            time.sleep(0.02)
        raise TimeoutError(f"rank {rank} did not reach step {step}: {self.end()}")

    def end(self) -> str:
        """Wait for the end; returns everything it printed."""
        self.output += self.process.communicate(timeout=240)[0]
        return self.output


Start = Callable[..., Life]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a point of several ranks; anything left of it is ended."""
    started: list[Life] = []

    def launch(name: str, *arguments: str, ranks: int = 2, step_seconds: float = 0.02) -> Life:
        trace = tmp_path / "trace"
        shutil.rmtree(trace, ignore_errors=True)
        trace.mkdir()
        command = [
            sys.executable, str(ROOT / "run.py"), f"run_dir={tmp_path / name}", f"hardware.tasks_per_node={ranks}",
            *JOB, f"+job={{step_seconds:{step_seconds},trace:'{tmp_path / 'trace'}'}}", *arguments,
        ]  # fmt: skip
        process = subprocess.Popen(
            [*command[:2], "-m", "hardware=cpu", "cluster=local", *command[2:]],
            cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(Life(tmp_path / name / "0", trace, process))
        return started[-1]

    yield launch
    for life in started:
        if life.process.poll() is None:
            life.process.kill()
            life.end()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_failing_rank_ends_the_job_with_its_traceback_first(start: Start) -> None:
    life = start("run", "steps=1000", "+job.fail_rank=1", "+job.fail_step=10")
    life.wait_for_step(2, rank=1)
    pids = [life.rank(number)["pid"] for number in (0, 1)]
    output = life.end()
    assert life.process.returncode == 1
    assert "ValueError: asked to fail at step 10" in output
    (record,) = (life.directory / "failures").glob("*.txt")
    assert record.read_text().startswith("hpc: rank 1 of 2")
    assert "asked to fail at step 10" in record.read_text()
    assert not any(is_alive(pid) for pid in pids)
    assert [event.rank for event in told(life.directory, Failed) if not event.is_echo] == [1]


def test_a_killed_rank_ends_the_job_with_its_signal(start: Start) -> None:
    life = start("run", "steps=1000", "launch.max_crashes=1")
    life.wait_for_step(5, rank=1)
    pids = [life.rank(number)["pid"] for number in (0, 1)]
    os.kill(pids[1], signal.SIGKILL)
    output = life.end()
    assert life.process.returncode == 76
    assert not any(is_alive(pid) for pid in pids)
    reports = [json.loads(path.read_text()) for path in (life.directory / "failures").glob("*.json")]
    causes = [(each["cause"]["rank"], each["cause"]["signal"], each["cause"]["told_by"]) for each in reports]
    assert causes[0] == (1, "SIGKILL", "exit")
    assert "rank 1 of 2" in output
    assert "it was killed by SIGKILL" in output


def uninterrupted(start: Start, *arguments: str) -> Path:
    life = start("golden", "steps=100", *arguments, step_seconds=0.02)
    assert "Finished." in life.end(), life.output
    return life.directory


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_to_one_rank_stops_all_and_the_run_goes_on_as_if_never_interrupted(start: Start, number: int) -> None:
    life = start("run", "steps=100")
    life.wait_for_step(40, rank=1)
    os.kill(life.rank(1)["pid"], number)
    output = life.end()
    assert life.process.returncode == 0, output
    (stop,) = told(life.directory, Stopped)
    assert 40 <= stop.step < 100
    assert f"Resumed at step {stop.step} of 100." in output
    assert len(told(life.directory, Started)) == 2
    assert differences(life.directory, uninterrupted(start)) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_signal_to_the_command_has_all_ranks_save(start: Start, number: int) -> None:
    life = start("run", "steps=1000")
    life.wait_for_step(10, rank=1)
    pids = [life.rank(rank)["pid"] for rank in (0, 1)]
    life.process.send_signal(number)
    output = life.end()
    assert life.process.returncode == (75 if number == signal.SIGINT else -signal.SIGKILL), output
    again = start("run", "steps=1000")
    (stop,) = told(life.directory, Stopped)
    assert not any(is_alive(pid) for pid in pids)
    again.wait_for_step(stop.step + 1)
    again.process.send_signal(signal.SIGTERM)
    assert f"Resumed at step {stop.step} of 1000." in again.end()


def test_a_crash_goes_back_to_the_last_checkpoint_and_ends_the_same(start: Start) -> None:
    life = start("run", "steps=100", "+job.workers=2")
    life.wait_for_step(60)
    os.kill(life.rank(0)["pid"], signal.SIGKILL)
    assert "Resumed at step 50 of 100." in life.end(), life.output
    assert life.process.returncode == 0
    assert differences(life.directory, uninterrupted(start, "+job.workers=2")) == []


def test_data_loader_workers_outlive_the_signal_that_stops_their_rank(start: Start) -> None:
    life = start("run", "steps=100", "+job.workers=2")
    life.wait_for_step(30)
    ranks = [life.rank(number)["pid"] for number in (0, 1)]
    family = [process for pid in ranks for process in [psutil.Process(pid), *psutil.Process(pid).children()]]
    assert len(family) >= 6
    for process in family:
        process.send_signal(signal.SIGTERM)
    output = life.end()
    assert life.process.returncode == 0, output
    assert len(told(life.directory, Stopped)) == 1
    assert "DataLoader worker" not in output


def test_a_finished_run_says_so_and_does_nothing(start: Start) -> None:
    directory = uninterrupted(start)
    before = read_journal(directory)
    again = start("golden", "steps=100")
    assert "Plan: finished 1." in again.end()
    assert again.process.returncode == 0
    assert read_journal(directory) == before


def test_a_changed_config_is_refused_and_named(run_py: Run) -> None:
    arguments = ("run_dir=out", "steps=3", "+job={step_seconds:0}", *JOB)
    assert run_py(*arguments).returncode == 0
    changed = run_py(*arguments, "optimizer.lr=0.5")
    assert changed.returncode == 78
    assert "but optimizer.lr changed" in changed.stderr


def test_lives_without_progress_end_the_job(run_py: Run, tmp_path: Path) -> None:
    arguments = ("run_dir=out", "steps=30", "runtime.max_lives_without_progress=2", *JOB)
    failing = "+job={step_seconds:0,fail_rank:0,fail_step:5}"
    assert [run_py(*arguments, failing).returncode for _ in range(3)] == [1, 1, 76]
    assert len(list((tmp_path / "out" / "failures").iterdir())) == 6  # a report and its text for each life


def test_when_every_checkpoint_is_damaged_nothing_starts_from_scratch(run_py: Run, tmp_path: Path) -> None:
    arguments = ("run_dir=out", "steps=60", *JOB)
    assert run_py(*arguments, "+job={step_seconds:0,fail_rank:0,fail_step:55}").returncode == 1
    for path in (tmp_path / "out" / "checkpoints").glob("*/model.safetensors"):
        path.write_bytes(b"damaged")
    done = run_py(*arguments, "+job={step_seconds:0,fail_rank:0,fail_step:55}")
    assert done.returncode == 65
    assert "must hold the checkpoint of step 50" in done.stderr


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("tests.programs.jobs.nothing", "must be an importable module.function"),
        ("nowhere.train", "must be an importable module.function"),
        ("nodots", "must be a module and a function of it, such as my_project.train.train"),
    ],
)
def test_a_training_function_that_is_not_there_is_one_sentence(run_py: Run, target: str, words: str) -> None:
    done = run_py(f"experiment.target={target}", "run_dir=out")
    assert done.returncode == 78
    assert f"{words}, but is {target}" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_exception_before_the_runtime_keeps_its_traceback(run_py: Run) -> None:
    done = run_py("experiment.target=tests.programs.jobs.fail_at_once", "run_dir=out")
    assert done.returncode == 1
    assert "ValueError: no training with seed 0" in done.stderr


def test_a_job_with_gpus_does_not_train_on_cpus_unnoticed(run_py: Run) -> None:
    environ = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": ""}
    done = run_py("run_dir=out", "hardware=1xA100", "+job={}", *JOB, environ=environ)
    assert done.returncode == 78
    assert "hardware.gpus_per_node is 1, but torch" in done.stderr


def test_eight_ranks_are_rehearsed_on_this_machine(run_py: Run, tmp_path: Path) -> None:
    done = run_py(
        "-m", "hardware=8xA100", "cluster=local", "runtime.device=cpu", "run_dir=out", "steps=5", "+job={}", *JOB
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "submitit INFO" not in done.stdout + done.stderr
    (started,) = told(tmp_path / "out" / "0", Started)
    assert started.world_size == 8


def test_half_set_rank_variables_are_one_sentence(run_py: Run, tmp_path: Path) -> None:
    done = run_py("run_dir=out", environ={"RANK": "0", "WORLD_SIZE": "2"})
    assert done.returncode == 78
    assert "MASTER_ADDR" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_hardware_and_world_that_disagree_are_one_sentence(run_py: Run, tmp_path: Path) -> None:
    done = run_py("run_dir=out", "hardware=cpu", environ={"SLURM_JOB_ID": "7"})
    assert done.returncode == 78
    assert "hardware=cpu must come up as 2 rank(s)" in done.stderr
    assert not (tmp_path / "out").exists()
