"""How does a person submit the same training with each library, and again when it has ended too early?"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field
from pathlib import Path

from hpc.testing.cluster import SlurmCluster
from tests.conftest import ROOT, clean_environment
from tests.programs.loops_of_others.problem import RANKS, SAVE_EVERY, STEPS, Conditions

LOOPS = "tests.programs.loops_of_others"
SIGNAL_SECONDS = 20
TYPED_SECONDS = 300


@dataclass
class Library:
    """One way to train.

    Args:
        cluster: Where.
        python: An interpreter that has the library.
        place: For what is written on the way.
    """

    cluster: SlurmCluster
    python: Path
    place: Path
    name: str = field(default="", init=False)
    signal: signal.Signals = field(default=signal.SIGUSR2, init=False)

    def submit(self, tasks: list[Conditions]) -> str:
        """Type what submits one job, or an array; returns its id."""
        raise NotImplementedError

    def submit_again(self, tasks: list[Conditions]) -> str:
        """What a person types once a job has ended who wants it to go on; returns its id."""
        return self.submit(tasks)

    def typed(self, *command: str) -> str:
        """What a command prints that is typed on the login node."""
        environ = {**clean_environment(), **self.cluster.environment, "PYTHONPATH": str(ROOT)}
        self.place.mkdir(parents=True, exist_ok=True)
        return self.cluster.run(*command, cwd=self.place, env=environ, timeout=TYPED_SECONDS).stdout


class Lightning(Library):
    """A batch script with srun, and the signal that SLURMEnvironment waits for."""

    name = "Lightning"
    signal = signal.SIGUSR1

    def submit(self, tasks: list[Conditions]) -> str:
        """One sbatch."""
        array = [f"--array=0-{len(tasks) - 1}"] if len(tasks) > 1 else []
        script = self.place / "job.sh"
        self.place.mkdir(parents=True, exist_ok=True)
        words = " ".join(f"'{task.words()}'" for task in tasks)
        script.write_text(
            f"#!/bin/bash\ntasks=({words})\n"
            f'srun {self.python} -m {LOOPS}.with_lightning "${{tasks[${{SLURM_ARRAY_TASK_ID:-0}}]}}"\n'
        )
        options = (f"--ntasks={RANKS}", "--nodes=1", f"--ntasks-per-node={RANKS}", "--time=30", "--requeue")
        more = (f"--signal=SIGUSR1@{SIGNAL_SECONDS}", "--open-mode=append", "--output=job-%A_%a.out")
        return self.typed("sbatch", "--parsable", *options, *more, *array, str(script)).strip()


class Submitit(Library):
    """A Checkpointable that runs a loop in Accelerate."""

    name = "submitit"

    def submit(self, tasks: list[Conditions]) -> str:
        """One call of its executor."""
        words = [task.words() for task in tasks]
        command = (str(self.python), "-m", f"{LOOPS}.with_submitit", str(self.place / "submitit"), *words)
        return self.typed(*command).split()[-1]


class Ours(Library):
    """`python run.py -m`, with the defaults but for what the problem is."""

    name = "hpc"

    def submit(self, tasks: list[Conditions]) -> str:
        """One command."""
        points = ",".join(f"point_{number}:{_value(task)}" for number, task in enumerate(tasks))
        seeds = ",".join(map(str, range(len(tasks))))
        command = (
            str(self.python), str(ROOT / "run.py"), "-m", "hardware=cpu", "hardware.nodes=1",
            f"hardware.tasks_per_node={RANKS}", "hardware.cpus_per_task=1", "hardware.time_limit_minutes=30",
            f"experiment.target={LOOPS}.with_hpc.train", f"checkpoint.every_steps={SAVE_EVERY}", f"steps={STEPS}",
            f"seed={seeds}", f"+job={{{points}}}", f"run_dir={tasks[0].run}", "launch.snapshot=false",
        )  # fmt: skip
        return _number(self.typed(*command))

    def submit_again(self, tasks: list[Conditions]) -> str:
        """`hpc retry`."""
        return _number(self.typed(str(self.python), "-m", "hpc", "retry", tasks[0].run))


LIBRARIES: tuple[type[Library], ...] = (Ours, Lightning, Submitit)


def _value(task: Conditions) -> str:
    """As Hydra's command line spells a dictionary."""
    values = {"run": f"'{task.run}'", "trace": f"'{task.trace}'", "fault": f"'{task.fault}'"}
    numbers = {"step_seconds": task.step_seconds, "ballast": task.ballast, "signal": task.signal}
    return "{" + ",".join(f"{name}:{value}" for name, value in {**values, **numbers}.items()) + "}"


def _number(printed: str) -> str:
    found = re.search(r"[Ss]ubmitted job (\d+)", printed)
    if not found:
        raise RuntimeError(printed)
    return found[1]
