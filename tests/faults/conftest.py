"""One cluster for all faults, on which a silent node is given up after half a minute."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hpc.testing.cluster import ClusterOptions, SlurmCluster
from hpc.testing.plugin import why_no_slurm_here
from hpc.testing.requirements import skip_or_fail_without_slurm
from tests.conftest import ROOT, clean_environment
from tests.faults.stage import EVERY, STEPS, Stage, Watch
from tests.faults.verdicts import NAMES, SECONDS_TO_GO_ON, STEPS_LOST, name_of
from tests.slurm.submitted import submitted_from

JOB = (
    "-m", "hardware=cpu", "hardware.nodes=1", "hardware.tasks_per_node=2", "hardware.time_limit_minutes=30",
    "experiment.target=tests.programs.jobs.train", "runtime.deterministic=true", f"checkpoint.every_steps={EVERY}",
    f"steps={STEPS}", "launch.snapshot=false",
)  # fmt: skip
Begin = Callable[..., Stage]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Four nodes without GPUs; slurmctld gives up a node that is silent for 30 s."""
    skip_or_fail_without_slurm("slurm", why_no_slurm_here(), os.environ)
    silence = ("SlurmdTimeout=30", "MinJobAge=300")
    with SlurmCluster(tmp_path_factory.mktemp("slurm"), ClusterOptions(gpus_per_node=0, extra_conf=silence)) as running:
        yield running


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The point that nobody disturbed, on this machine."""
    directory = tmp_path_factory.mktemp("golden")
    job = [argument for argument in JOB if not argument.startswith("hardware.time")]
    command = [sys.executable, str(ROOT / "run.py"), *job, "cluster=local", f"run_dir={directory}/run"]
    done = subprocess.run(
        [*command, "+job={step_seconds:0}"],
        cwd=directory, env=clean_environment(), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / "run" / "0"


@pytest.fixture
def begin(
    slurm: SlurmCluster, golden: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> Iterator[Begin]:
    """Submit the run that faults are tried on; what is still there at the end is cancelled."""

    def report(lost: int, seconds: float) -> None:
        record_property(STEPS_LOST, lost)
        record_property(SECONDS_TO_GO_ON, seconds)

    with ExitStack() as undo:

        def send(
            *arguments: str, directory: Path = tmp_path / "run", step_seconds: float = 0.3, **environ: str
        ) -> Stage:
            trace = tmp_path / "trace"  # not in the run's directory, whose disk may be full
            words = f"+job={{step_seconds:{step_seconds},trace:'{trace}'}}"
            job = submitted_from(tmp_path, slurm, directory, *JOB, words, *arguments, **environ)
            undo.callback(slurm.run, "scancel", job.job_id, check=False)
            watch = undo.enter_context(Watch(job.point(), trace))
            return Stage(job, watch, golden, report)

        yield send


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that the table names, in whatever folder it is: `make test-faults` runs them all."""
    for item in items:
        if name_of(item.nodeid) in NAMES:
            item.add_marker("injected")
