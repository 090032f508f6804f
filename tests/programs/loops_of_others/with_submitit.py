"""The loop in Accelerate as a job that submitit requeues: a Checkpointable, which begins from what the loop has saved.

python -m tests.programs.loops_of_others.with_submitit FOLDER CONDITIONS...
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import submitit
from submitit.helpers import Checkpointable, DelayedSubmission, TorchDistributedEnvironment

from tests.programs.loops_of_others import with_accelerate
from tests.programs.loops_of_others.problem import RANKS, Conditions

SIGNAL_SECONDS = 20


@dataclass
class Training(Checkpointable):
    """The loop; whatever it needs to go on is on the disk."""

    conditions: Conditions

    def __call__(self) -> None:
        """Train."""
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        with_accelerate.train(self.conditions)

    def checkpoint(self) -> DelayedSubmission:
        """What begins when the job is requeued."""
        return DelayedSubmission(Training(self.conditions))


def submit(folder: str, tasks: list[Conditions]) -> str:
    """Submit one job, or an array of several; returns its id."""
    executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=20)
    executor.update_parameters(
        nodes=1, tasks_per_node=RANKS, cpus_per_task=1, timeout_min=30, slurm_signal_delay_s=SIGNAL_SECONDS
    )
    if len(tasks) == 1:
        return str(executor.submit(Training(tasks[0])).job_id)
    with executor.batch():
        jobs = [executor.submit(Training(task)) for task in tasks]
    return str(jobs[0].job_id).partition("_")[0]


if __name__ == "__main__":
    print(submit(sys.argv[1], [Conditions(**json.loads(words)) for words in sys.argv[2:]]))
