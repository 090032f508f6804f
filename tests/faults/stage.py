"""A run under faults, and what must hold after every one of them."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hpc.checkpoint.store import CheckpointStore, damage
from hpc.run.events import Committed, Event, Resumed, Started
from hpc.run.journal import read_journal
from hpc.testing.cluster import SlurmCluster
from tests.conftest import ROOT, clean_environment
from tests.slurm.submitted import Submitted
from tests.support.equality import differences

STEPS = 60
EVERY = 10
"""A checkpoint after so many steps."""
PATIENCE_SECONDS = 600


class Advance(NamedTuple):
    """Rank 0 has begun a step.

    Args:
        time: When that was seen, in seconds since 1970.
        step: Its number.
        life: Of which life of which job the rank is, as 5-1: after a split, ranks of two lives may train.
    """

    time: float
    step: int
    life: str

    def is_of(self, event: Event) -> bool:
        """Whether it was taken by the attempt that tells of an event."""
        return f".{self.life}." in event.attempt


@dataclass
class Watch:
    """Looks at a run's checkpoints all the time, and at how far it is.

    Args:
        directory: Of the point.
        trace: Where its rank 0 tells its step.
    """

    directory: Path
    trace: Path
    missing_at: list[float] = field(default_factory=list)
    advances: list[Advance] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        assert self._thread
        self._thread.join()

    @property
    def step(self) -> int:
        """That rank 0 is in."""
        return self.advances[-1].step if self.advances else 0

    def _look(self) -> None:
        store, seen = CheckpointStore(self.directory / "checkpoints"), False
        while not self._over.wait(0.05):
            there = bool(store.list() or store.list())  # twice: the first may have met an old one that was just removed
            if seen and not there:
                self.missing_at.append(time.time())
            seen = seen or there
            told = _told(self.trace / "rank_0.json")
            if told and (not self.advances or self.advances[-1][1:] != told):
                self.advances.append(Advance(time.time(), *told))


@dataclass(frozen=True)
class Stage:
    """One run on which faults are tried.

    Args:
        job: In the queue.
        watch: Looks at it.
        golden: The point that nobody disturbed.
        report: Told how many steps were lost, and the seconds to the next new step.
    """

    job: Submitted
    watch: Watch
    golden: Path
    report: Callable[[int, float], None]

    @property
    def cluster(self) -> SlurmCluster:
        """Where it runs."""
        return self.job.cluster

    @property
    def id(self) -> str:
        """Of its job: the only task of an array, or a job."""
        return self.cluster.jobs(self.job.job_id)[0]["JobId"]

    @property
    def node(self) -> str:
        """Where its rank 0 is."""
        nodes = self.cluster.job(self.id)["NodeList"]
        return self.cluster.run("scontrol", "show", "hostnames", nodes).stdout.split()[0]

    def typed(self, verb: str, *options: str, **environ: str) -> str:
        """What `hpc VERB` says of the run, typed on the login node."""
        environment = {**clean_environment(), **self.cluster.environment, "PYTHONPATH": str(ROOT), **environ}
        command = [sys.executable, "-m", "hpc", verb, str(self.job.directory), *options]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True).stdout

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """With patience, and the whole story where it is in vain."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.cluster.jobs(self.job.job_id)}\n{self.job.output()}"
            time.sleep(0.2)

    def wait_for_commit(self, lives: int = 1) -> None:
        """Until a checkpoint is there, and training goes on, in this life of the run."""

        def committed() -> bool:
            told = self.job.events(Started)
            return len(told) >= lives and any(each.attempt == told[-1].attempt for each in self.job.events(Committed))

        self.wait(committed, "no checkpoint was committed")

    def wait_for_life(self, number: int) -> None:
        """Until the run has begun for the so-manieth time."""
        self.wait(lambda: len(self.job.events(Resumed)) >= number, f"life {number} did not begin")

    def wait_for_end(self) -> None:
        """Until its training function has returned and the job is out of the queue."""
        self.wait(lambda: (self.job.point() / "finished.json").exists(), "it did not finish")
        self.job.wait_for("COMPLETED")


def check_invariants(stage: Stage, most_lost: int, lost_at: float = math.inf) -> None:
    """All that must hold after a run has lived through faults and come to its end, I1 to I12.

    Args:
        stage: It has ended.
        most_lost: Steps that one life may lose at most: 0 where it was asked to stop.
        lost_at: When a node was lost whose ranks train on, for nothing; in seconds since 1970.
    """
    job, events = stage.job, read_journal(stage.job.point())
    resumed = [event for event in events if isinstance(event, Resumed)]
    lost = [steps_lost(stage, event) for event in resumed[1:]]
    assert [event.step for event in resumed] == [newest_commit(events, event) for event in resumed], (
        "I1: a commit was lost"
    )
    assert all(each <= most_lost for each in lost), f"I1: {lost} steps were lost in the lives after the first"
    assert differences(job.point(), stage.golden) == [], "I2 and I9: it is not the run that nobody disturbed"
    store = CheckpointStore(job.point() / "checkpoints")
    assert [damage(each) for each in store.list() if damage(each)] == [], "I3: a checkpoint is damaged"
    stage.wait(lambda: processes(stage) == [], "I4: processes are left")
    stage.wait(lambda: queued(stage) == "", "I5: something is left in the queue")
    assert stage.cluster.jobs(job.job_id)[0]["JobState"] == "COMPLETED", "I6: the controller says something else"
    assert writers_in_order(events), f"I8: an older life has committed after a newer one began: {events}"
    assert all(each.step in range(STEPS + 1) for each in resumed)
    assert (job.point() / "logs" / "rank_0.log").stat().st_size, "I11: there is no log"
    assert stage.watch.missing_at == [], "I12: there was a moment without any checkpoint"
    stage.report(sum(lost), seconds_to_go_on(stage, resumed[1:], lost_at))


def newest_commit(events: list[Event], resumed: Resumed) -> int:
    """The step that was committed last before a life went on; 0 where none was."""
    before = itertools.takewhile(lambda event: event is not resumed, events)
    return max((event.step for event in before if isinstance(event, Committed)), default=0)


def writers_in_order(events: list[Event]) -> bool:
    """Whether no attempt has committed anything once a later one had begun to train."""
    order = [event.attempt for event in events if isinstance(event, Resumed)]
    newest = ""
    for event in events:
        if isinstance(event, Resumed):
            newest = event.attempt
        elif isinstance(event, Committed) and event.attempt in order and event.attempt != newest:
            return False
    return True


def steps_lost(stage: Stage, resumed: Resumed) -> int:
    """How many steps that had been taken before a life began are taken again in it."""
    reached = [each.step for each in stage.watch.advances if each.time < resumed.time and not each.is_of(resumed)]
    last = reached[-1] if reached else 0
    return max(0, last - 1 - resumed.step)  # the step in the trace may not have been over


def seconds_to_go_on(stage: Stage, resumed: list[Resumed], lost_at: float) -> float:
    """From the last step of a life to the first new one of the next, the queue and Slurm's delay included."""
    gaps = []
    for event in resumed:
        own = [each.time for each in stage.watch.advances if each.is_of(event)]
        last = min(lost_at, event.time)
        before = [each.time for each in stage.watch.advances if each.time < last and not each.is_of(event)]
        gaps += [own[0] - before[-1]] if before and own else []
    return max(gaps, default=0.0)


def processes(stage: Stage) -> list[str]:
    """What is left on the nodes."""
    nodes = stage.cluster.options.node_names
    return [process.command for node in nodes for process in stage.cluster.processes_on(node)]


def queued(stage: Stage) -> str:
    """What is left in the queue, but for what is being forgotten."""
    return stage.cluster.run("squeue", "--noheader", "--partition=low").stdout


def _told(path: Path) -> tuple[int, str] | None:
    try:
        told = json.loads(path.read_text())
        return int(told["step"]), str(told["life"])
    except (OSError, ValueError, KeyError):
        return None
