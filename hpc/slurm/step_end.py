"""How did the tasks of a step end? Read from what srun and slurmstepd write at the end of a job's output.

The lines that are understood, as Slurm 22.05 writes them (src/plugins/launch/slurm, src/slurmd/slurmstepd):

    srun: error: node2: task 3: Exited with exit code 1
    srun: error: node1: tasks 0-1: Killed
    srun: error: node1: task 1: Out Of Memory
    srun: error: Node failure on node2
    srun: launch/slurm: _step_signal: Terminating StepId=5.0
    slurmstepd: error: *** STEP 5.0 ON node1 CANCELLED AT 2026-11-29T00:12:30 DUE TO TIME LIMIT ***
    slurmstepd: error: Detected 1 oom_kill event in StepId=5.0.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from hpc.slurm.numbers import expanded

TASKS = re.compile(r"srun: error: ([\w.,\[\]-]+): tasks? ([\d,\-]+): (.+)")
CODE = re.compile(r"Exited with exit code (\d+)")
NODE_FAILURE = re.compile(r"[Nn]ode failure on ([\w.,\[\]-]+)")
ENDING = re.compile(r"Terminating StepId=|\*\*\* (?:STEP|JOB) [\w.+]+ ON \S+ CANCELLED AT|Job step aborted")
"""From here on tasks end because srun or slurmctld ends them."""
OUT_OF_MEMORY = "Out Of Memory"
SIGNALS = {
    text: number for number in signal.Signals if (text := signal.strsignal(number)) is not None
}  # srun shows strsignal's word for it
STATES = (
    (re.compile(r"oom.kill|: Out Of Memory", re.IGNORECASE), "OUT_OF_MEMORY"),
    (re.compile(r"DUE TO NODE.FAIL|Node failure on", re.IGNORECASE), "NODE_FAIL"),
    (re.compile(r"DUE TO TIME LIMIT"), "TIMEOUT"),
    (re.compile(r"DUE TO PREEMPTION"), "PREEMPTED"),
)
"""Which state of a job these words mean."""


@dataclass(frozen=True)
class Exit:
    """How one rank ended, as whoever watched over it says.

    Args:
        rank: Which one.
        code: Its exit code, as 128+n for signal n.
        host: Its node; "" where that is not said.
        is_ended: Whether it was told to end before, because another rank had ended.
        time: When that was seen, in seconds since the epoch; None where it is not said.
    """

    rank: int
    code: int
    host: str = ""
    is_ended: bool = False
    time: float | None = None


@dataclass(frozen=True)
class StepEnd:
    """What was said of a step's end.

    Args:
        exits: Of its ranks, in the order in which it was told; a rank that ended well is not told by srun.
        states: States of a job that the words mean.
        failed_nodes: Node lists, as Slurm shortens them, of nodes that failed.
    """

    exits: tuple[Exit, ...] = ()
    states: tuple[str, ...] = ()
    failed_nodes: tuple[str, ...] = ()


def step_end(log: str) -> StepEnd:
    """What the end of a job's output says of its last step.

    Args:
        log: Of one life; other programs' lines are passed over.
    """
    lines = log.splitlines()
    states = tuple(state for pattern, state in STATES if pattern.search(log))
    nodes = [match[1] for line in lines for match in NODE_FAILURE.finditer(line)]
    return StepEnd(tuple(_exits(lines)), states, tuple(dict.fromkeys(nodes)))


def _exits(lines: list[str]) -> Iterator[Exit]:
    is_ended, told = False, set[int]()
    for line in lines:
        is_ended = is_ended or ENDING.search(line) is not None
        match = TASKS.search(line)
        code = _code(match[3]) if match else None
        if match is None or code is None:
            continue
        host = match[1] if not {",", "["} & {*match[1]} else ""
        for rank in expanded(match[2]):
            if rank not in told:
                told.add(rank)
                yield Exit(rank, code, host, is_ended)


def _code(words: str) -> int | None:
    """128+n for signal n, and for a task that the kernel has killed for its memory."""
    if words.startswith(OUT_OF_MEMORY):
        return 128 + signal.SIGKILL
    number = CODE.match(words)
    if number:
        return int(number[1])
    found = SIGNALS.get(words.removesuffix(" (core dumped)"))
    return None if found is None else 128 + found
