"""How is each of twelve faults done to a run whose library does not matter?"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.testing.faults import Faults
from hpc.testing.ranks import rank_of, send
from tests.benchmarks.peer_trial import FINAL, GRACE, Outcome, Trial
from tests.programs.loops_of_others.problem import MARK

STEP = 15
"""Faults come here: there is one checkpoint, and the next is some steps away."""
AGAIN_SECONDS = 25
"""A job that is requeued after a cancellation would be eligible again by then."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        number: In the project's list of faults.
        title: In words.
        act: Does it to a run, and says what became of it.
        conditions: Of the run, where they are not the usual ones.
        tasks: Of an array.
        is_on_small_disk: Whether the run keeps its checkpoints on the small disk.
    """

    number: int
    title: str
    act: Callable[[Trial, Faults], Outcome]
    conditions: dict[str, Any] = field(default_factory=dict)
    tasks: int = 1
    is_on_small_disk: bool = False


def _preempt(trial: Trial, grace_seconds: int) -> None:
    trial.wait_for_step(STEP)
    with GRACE, Faults(trial.cluster) as faults:
        faults.preempt(trial.id, grace_seconds)


def preempted_with_grace(trial: Trial, _: Faults) -> Outcome:
    """Fault 1."""
    _preempt(trial, 20)
    return trial.outcome()


def preempted_without_grace(trial: Trial, _: Faults) -> Outcome:
    """Fault 3: SIGKILL follows SIGTERM after KillWait."""
    _preempt(trial, 0)
    return trial.outcome()


def time_limit(trial: Trial, faults: Faults) -> Outcome:
    """Fault 7: the limit comes in the middle of the first life; later ones have the whole."""
    trial.wait_for_step(STEP)
    job = trial.id
    faults.time_limit(job, 1)
    trial.wait(lambda: trial.cluster.job(job)["Restarts"] != "0" or trial.state() in FINAL, "no time limit")
    if trial.state() not in FINAL:
        faults.time_limit(job, 30)
    return trial.outcome()


def left_alone(trial: Trial, _: Faults) -> Outcome:
    """Fault 12, which a run does to itself."""
    return trial.outcome()


def one_rank_signalled(trial: Trial, faults: Faults) -> Outcome:
    """Fault 13."""
    trial.wait_for_step(STEP)
    faults.signal_rank(trial.id, 1, trial.library.signal)
    return trial.outcome()


def cancelled(trial: Trial, _: Faults) -> Outcome:
    """Fault 18: a person's scancel is final."""
    trial.wait_for_step(STEP)
    trial.cluster.run("scancel", trial.job)
    trial.wait(lambda: trial.state() in FINAL, "it is not cancelled")
    time.sleep(AGAIN_SECONDS)
    state = trial.state()
    return Outcome("yes" if state == "CANCELLED" else "no", note=f"{state}, and stays so")


def one_of_an_array_preempted(trial: Trial, _: Faults) -> Outcome:
    """Fault 21."""
    trial.wait(lambda: bool(trial.steps(1)), "the other task does not train")
    _preempt(trial, 20)
    outcome = trial.outcome()
    others = trial.cluster.job(f"{trial.job}_1")["Restarts"]
    told = f"{outcome.note} (the other task restarted {others} times)"
    return Outcome(outcome.survived, outcome.lost, outcome.equal, told)


def rank_killed(trial: Trial, faults: Faults) -> Outcome:
    """Fault 27."""
    trial.wait_for_step(STEP)
    faults.kill_rank(trial.id, 1)
    return trial.outcome()


def killed_in_a_save(trial: Trial, _: Faults) -> Outcome:
    """Fault 28: SIGKILL to rank 0 as soon as something of the second checkpoint appears on the disk."""
    trial.wait_for_step(STEP)
    pid, run = rank_of(trial.cluster, trial.id, 0), Path(trial.tasks[0].run)
    before = _files(run)
    trial.wait(lambda: bool(_checkpoints(_files(run) - before)), "nothing is saved")
    send(pid, signal.SIGKILL)
    return trial.outcome()


def disk_full(trial: Trial, faults: Faults) -> Outcome:
    """Fault 37: until the job has ended, or gone on for some time."""
    trial.wait_for_step(STEP)
    faults.full_disk()
    return trial.outcome(before_again=faults.free_disk)


def bit_flipped(trial: Trial, faults: Faults) -> Outcome:
    """Fault 43: while the job waits to start again, in the weights of the newest checkpoint."""
    trial.wait_for_step(2 * STEP)
    with GRACE:
        faults.preempt(trial.id, 0)
    trial.wait(lambda: trial.state() == "PENDING", "it is not requeued")
    name = _flip_a_bit(Path(trial.tasks[0].run))
    outcome = trial.outcome()
    return Outcome(outcome.survived, outcome.lost, outcome.equal, f"{outcome.note} (bit in {name})")


def crashes_before_any_checkpoint(trial: Trial, _: Faults) -> Outcome:
    """Fault 52: every life crashes at step 3, so that it must end and not begin for ever."""
    trial.wait(lambda: trial.state() in FINAL, "it does not end", seconds=400)
    time.sleep(AGAIN_SECONDS)
    lives = trial.steps().count(1)
    told = f"{trial.state()} after {lives} {'life' if lives == 1 else 'lives'}"
    return Outcome("ends" if trial.state() in FINAL else "no", note=told)


LONGER = {"step_seconds": 1.0}
"""So that nobody ends within the grace time who goes on training."""

FAULTS = (
    Fault(1, "preempted, grace 20 s", preempted_with_grace, LONGER),
    Fault(3, "preempted without grace", preempted_without_grace),
    Fault(7, "time limit", time_limit, {"step_seconds": 1.0}),
    Fault(12, "signal in backward", left_alone, {"fault": "signal in backward"}),
    Fault(13, "signal to one rank", one_rank_signalled),
    Fault(18, "scancel", cancelled),
    Fault(21, "one task of an array of two preempted", one_of_an_array_preempted, LONGER, tasks=2),
    Fault(27, "kill -9 of a rank", rank_killed),
    Fault(28, "kill -9 of rank 0 in a save", killed_in_a_save, {"ballast": 4_000_000}),
    Fault(37, "disk full at a save", disk_full, is_on_small_disk=True),
    Fault(43, "a bit of the newest checkpoint flipped", bit_flipped),
    Fault(52, "crash before the first checkpoint, always", crashes_before_any_checkpoint, {"fault": "crash early"}),
)


def _files(run: Path) -> set[Path]:
    return {Path(folder) / name for folder, folders, names in os.walk(run) for name in (*folders, *names)}


def _checkpoints(paths: set[Path]) -> set[Path]:
    return {path for path in paths if "checkpoint" in str(path)}


def _flip_a_bit(run: Path) -> str:
    """In the file with weights that was written last; returns its name."""
    weights = MARK.numpy().tobytes()
    files = [path for path in _checkpoints(_files(run)) if path.is_file() and weights in path.read_bytes()]
    path = max(files, key=lambda path: path.stat().st_mtime)
    content = bytearray(path.read_bytes())
    content[content.index(weights) + 6] ^= 1 << 6  # in the mantissa of the second of them
    path.write_bytes(content)
    return path.name
