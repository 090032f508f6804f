"""Runs plans on this machine, one point after the other, through submitit's local executor."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from submitit.core.utils import JobPaths
from submitit.local.local import LocalExecutor, LocalJob

from hpc.attempt.identity import new_stamp
from hpc.errors import EXIT_CONTINUE
from hpc.files import read_regular
from hpc.launch.start import command
from hpc.run.directory import RunDirectory
from hpc.run.ownership import make_private
from hpc.run.processes import this_process
from hpc.run.submissions import LOCAL, Submission, newest_attempts, record_submission
from hpc.say import error, say, warn
from hpc.submit.environment import for_child
from hpc.submit.interpreter import interpreter
from hpc.submit.payload import run_point
from hpc.submit.plan import Plan

POLL_SECONDS = 0.2


class _Executor(LocalExecutor):
    """submitit's own controller waits for every task although one is dead, and then exits 0 (submitit 1.5).

    Args:
        plan: Whose tasks it starts.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(folder=plan.log_directory, python=interpreter(plan))
        self.writers = plan.cluster.run_dir_writers
        environment = dict(plan.cluster.environment)
        self.parameters.update(tasks_per_node=plan.hardware.task_count, environment=environment)

    @property
    def _submitit_command_str(self) -> str:
        return command(self.python, Path(self.folder), self.writers)

    def _submit_command(self, command: str) -> LocalJob[Any]:
        tasks, job_id = self._num_tasks(), new_stamp()  # process ids come again, in containers after every start
        environment = {
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_NTASKS": str(tasks),
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_TIMEOUT_S": "0",
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": "0",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_STDERR_TO_STDOUT": "1",
            "SUBMITIT_LOCAL_WITH_SHELL": "",
            "PYTHONPATH": os.pathsep.join(entry or os.curdir for entry in sys.path),
            **self.parameters["environment"],
        }
        controller = [sys.executable, "-m", "hpc.launch.controller", str(self.folder), job_id]
        process = subprocess.Popen(controller, env={"SUBMITIT_LOG_LEVEL": "WARNING", **for_child(**environment)})
        return LocalJob(folder=self.folder, job_id=job_id, process=process, tasks=list(range(tasks)))


def run(plans: list[Plan]) -> None:
    """Run every point to its end, showing rank 0's output.

    Raises:
        SystemExit: With the code of the first point that did not finish. A failure does not keep later points from
            running; a stop does.
    """
    failed = 0
    for plan, point in [(each, point) for each in plans for point in each.points]:
        code = _run_point(plan, point)
        failed = failed or code
        if code == EXIT_CONTINUE:
            warn("Stopped; the same command goes on from here.")
            break
    if failed:
        raise SystemExit(failed)


def _run_point(plan: Plan, point: str) -> int:
    make_private(plan.log_directory)
    executor = _Executor(plan)
    say(f"Point {point}: {plan.hardware.task_count} rank(s) here, in {plan.sweep_directory / point}")
    job = cast("LocalJob[None]", executor.submit(run_point, str(plan.sweep_directory), point))
    process = cast("subprocess.Popen[bytes]", job._process)
    _note(plan, point, job.job_id, process)
    log = JobPaths(plan.log_directory, job.job_id, 0).stdout
    code = _follow(process, log)
    if code:
        for record in RunDirectory(plan.sweep_directory / point).failures.glob(f"*{job.job_id}*"):
            error(read_regular(record).decode(errors="replace").removeprefix("hpc: ").rstrip("\n"))
        error(f"Point {point} ended with exit code {code}; its logs: {shlex.quote(str(plan.log_directory))}")
    return code


def _note(plan: Plan, point: str, job: str, process: subprocess.Popen[bytes]) -> None:
    """Write down which process holds the point, for `hpc status` and `hpc cancel`; it trains without that, too."""
    after = newest_attempts(plan.sweep_directory, [point])
    with suppress(OSError):
        recorded = this_process(process.pid)
        now = round(time.time(), 3)
        record_submission(plan.sweep_directory, Submission(job, (point,), now, LOCAL, process=recorded, after=after))


def _follow(process: subprocess.Popen[bytes], log: Path) -> int:
    """Relay a growing file until the process ends; Ctrl-C reaches the ranks by themselves, and they save."""
    shown = 0
    while True:
        try:
            code = process.poll()
            shown += _relay(log, shown)
            if code is not None:
                return code
            time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            continue


def _relay(log: Path, start: int) -> int:
    if not log.exists():
        return 0
    with log.open("rb") as file:
        file.seek(start)
        text = file.read()
    sys.stdout.write(text.decode(errors="replace"))
    sys.stdout.flush()
    return len(text)
