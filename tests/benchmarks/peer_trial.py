"""What becomes of one training, with one library, under one fault?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from hpc.testing.cluster import SlurmCluster
from tests.benchmarks.peer_jobs import Library
from tests.programs.loops_of_others.problem import Conditions

PATIENCE_SECONDS = 150
"""A run that takes no step for so long hangs."""
FINAL = {"FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "COMPLETED", "OUT_OF_MEMORY"}
GRACE = threading.Lock()
"""The grace time belongs to a partition: one preemption at a time may set it."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Args:
        survived: By itself ("yes"), "after a person resubmits" or "no".
        lost: Steps that were taken twice.
        equal: Whether its result is bitwise that of an undisturbed run; None without a result.
        note: What else there is to say.
    """

    survived: str
    lost: int | None = None
    equal: bool | None = None
    note: str = ""


@dataclass
class Trial:
    """One run, in the queue.

    Args:
        library: That submits it.
        tasks: Its conditions; of an array, each task's.
        golden: The result of an undisturbed run.
    """

    library: Library
    tasks: list[Conditions]
    golden: Path
    job: str = ""

    def submit(self) -> None:
        """Put it into the queue."""
        self.job = self.library.submit(self.tasks)

    @property
    def cluster(self) -> SlurmCluster:
        """Where."""
        return self.library.cluster

    @property
    def id(self) -> str:
        """Of the job, or of the first task of the array, as scontrol takes it."""
        return f"{self.job}_0" if len(self.cluster.jobs(self.job)) > 1 or len(self.tasks) > 1 else self._alone

    @property
    def _alone(self) -> str:
        return self.cluster.jobs(self.job)[0]["JobId"]

    def steps(self, task: int = 0) -> list[int]:
        """Every step that rank 0 has taken, in order."""
        path = Path(self.tasks[task].trace) / "rank_0.txt"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def result(self, task: int = 0) -> Path:
        """Of a run that has finished."""
        return Path(self.tasks[task].trace) / "result.pt"

    def state(self) -> str:
        """Of the first task; what is submitted for it again counts."""
        return self.cluster.job(self.id)["JobState"]

    def wait_for_step(self, step: int) -> None:
        """Until rank 0 has taken it."""
        self.wait(lambda: max(self.steps(), default=0) >= step, f"step {step} was not reached")

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 300) -> None:
        """With patience.

        Raises:
            TimeoutError: In vain.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.library.name}: {what}; job {self.job} is {self.state()}")
            time.sleep(0.1)

    def outcome(self, before_again: Callable[[], None] = lambda: None) -> Outcome:
        """Wait for the end; where it is no good end, let a person resubmit, once.

        Args:
            before_again: What that person does before.
        """
        note = self._end()
        if self._finished():
            return self._told("yes", note)
        before_again()
        try:
            self.job = self.library.submit_again(self.tasks)
        except (RuntimeError, OSError, ValueError) as error:
            return Outcome("no", note=f"{note}; again: {str(error).splitlines()[-1][:80]}")
        again = self._end()
        return self._told("after a person resubmits" if self._finished() else "no", note, again)

    def _finished(self) -> bool:
        return all(self.result(number).exists() for number in range(len(self.tasks)))

    def _told(self, survived: str, *notes: str) -> Outcome:
        steps = self.steps()
        equal = _equal(self.result(), self.golden) if self.result().exists() else None
        said = "; then ".join(note for note in notes if note)
        return Outcome(survived, len(steps) - len({*steps}), equal, said)

    def _end(self) -> str:
        """Until the job is over or makes no step; returns what is to be said about it."""
        seen, since = -1, time.monotonic()
        while not self._over():
            if (now := sum(len(self.steps(each)) for each in range(len(self.tasks)))) != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > PATIENCE_SECONDS:
                return self._give_up()
            time.sleep(0.5)
        return "" if self._finished() else f"{self.state()} at step {max(self.steps(), default=0)}"

    def _give_up(self) -> str:
        record = self.cluster.job(self.id)
        self.cluster.run("scancel", self.job)
        self.wait(self._over, "it cannot be cancelled")
        return f"{record['JobState']} for {PATIENCE_SECONDS} s without a step"

    def _over(self) -> bool:
        """Twice, since a job that has ended may be requeued in the next moment."""
        if not self._all_final():
            return False
        time.sleep(5)
        return self._all_final()

    def _all_final(self) -> bool:
        return all(job["JobState"] in FINAL for job in self.cluster.jobs(self.job))


def _equal(result: Path, golden: Path) -> bool:
    first, second = (torch.load(path, weights_only=True) for path in (result, golden))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
