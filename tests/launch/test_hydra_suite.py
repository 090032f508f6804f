"""Hydra's own tests of launchers, as far as they can be ours.

`hydra.test_utils.launcher_common_tests.LauncherTestSuite` starts a function that it defines in the test, on configs
that hold nothing but {"foo": 10, "bar": 100}, and compares whole configs and Hydra's own output files. With us

- a point names its training function as experiment.target, because it must be found again in another process, at a
  requeue, and by who looks at the sweep later: test_sweep_1_job, _strict, test_sweep_2_jobs, _2_optimizers,
  test_sweep_over_unspecified_mandatory_default, test_sweep_and_override and test_sweep_with_custom_resolver have none;
- Hydra writes nothing into the run directory: no .hydra/, no multirun.yaml, no log file of the job's name, which
  `verify_dir_outputs` looks for in each of them;
- test_sweep_1_job_strict_and_bad_key is content with any exception, and so with that one, too.

What the suite is about is asked here with a function that can be imported: overrides, configs, values, the job's name
and number, and a directory for each, in one batch and in several.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.test_utils.launcher_common_tests import LauncherTestSuite

OURS = ("+experiment={target:tests.programs.trials.value,name:suite}", "+cluster={scheduler:local}")
WAITING = (*OURS, "+launch={wait:true,snapshot:false,max_parallel:2}", "hydra/launcher=hpc")


@pytest.mark.usefixtures("hydra_restore_singletons")
@pytest.mark.parametrize(("launcher_name", "overrides"), [("hpc", [])])
class TestLauncher:
    test_not_sweeping_hydra_overrides = LauncherTestSuite.test_not_sweeping_hydra_overrides


@pytest.fixture
def run_sweep(hydra_sweep_runner: Any, tmp_path: Path) -> Any:
    """A sweep over the suite's own configs; returns its batches of JobReturns."""

    def run(*overrides: str) -> list[list[JobReturn]]:
        sweep = hydra_sweep_runner(
            calling_file=None,
            calling_module="hydra.test_utils.a_module",
            task_function=None,
            config_path="configs",
            config_name="compose",
            overrides=[*WAITING, f"+run_dir={tmp_path / 'out'}", *overrides],
            temp_dir=tmp_path / "hydra",
        )
        with sweep:
            return [list(batch) for batch in sweep.returns]

    return run


def test_a_sweep_of_groups_and_values_returns_what_each_job_did(run_sweep: Any) -> None:
    (jobs,) = run_sweep("group1=file1,file2", "+x=2,5")
    chosen = [[each for each in job.overrides if each.startswith(("group1", "+x"))] for job in jobs]
    assert chosen == [[f"group1=file{group}", f"+x={x}"] for group in (1, 2) for x in (2, 5)]
    assert [(job.cfg.foo, job.cfg.bar, job.cfg.x) for job in jobs] == [
        (foo, 100, x) for foo in (10, 20) for x in (2, 5)
    ]
    assert [job.return_value for job in jobs] == [0.0, 9.0, 0.0, 9.0]
    assert {job.status for job in jobs} == {JobStatus.COMPLETED}
    assert {job.hydra_cfg.hydra.job.name for job in jobs} == {"a_module"}
    assert [job.hydra_cfg.hydra.job.num for job in jobs] == [0, 1, 2, 3]
    assert len({job.working_dir for job in jobs}) == 4
    assert all((Path(job.working_dir) / "finished.json").exists() for job in jobs)


def test_batches_return_one_after_the_other(run_sweep: Any) -> None:
    batches = run_sweep("+x=1,2,3", "hydra.sweeper.max_batch_size=2")
    assert [[job.return_value for job in batch] for batch in batches] == [[1.0, 0.0], [1.0]]
    assert len({job.working_dir for batch in batches for job in batch}) == 3
