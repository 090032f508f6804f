"""How much energy have jobs taken? Asked of the accounting, which tells it where a site measures its nodes.

A step's value is what its nodes have taken while it ran, in joules, other jobs on them included. That of a job counts
the first node twice on many sites: slurmctld adds up all steps, of which the batch script is one, unless
PrologFlags=Contain gives the job an `extern` step, which then counts alone. Source: `_internal_step_complete` in
slurmctld/step_mgr.c; sacct/print.c and print_fields.c for what is printed (20.11 to 24.05).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from hpc.slurm import client

FIELDS = "JobID,Start,End,ConsumedEnergyRaw"
UNKNOWN = frozenset({2**32 - 2, 2**32 - 1})
"""NO_VAL and INFINITE, Slurm's words for no value; those of 64 bits are above `MOST_JOULES`."""
MOST_JOULES = 2**62
"""Beyond lie counters that have run below zero."""
EXTERN = "extern"


@dataclass(frozen=True, slots=True)
class Consumed:
    """One life of a job: a requeue begins the next one.

    Args:
        job: `105`, or `105_1` for a task of an array.
        begin: In seconds since the epoch; None where it never began.
        end: Likewise; None where it runs still.
        joules: What its nodes have taken; None where they do not tell.
    """

    job: str
    begin: float | None
    end: float | None
    joules: int | None


def consumed(jobs: Iterable[str], environ: Mapping[str, str], clusters: str | None = None) -> list[Consumed]:
    """Every life of these jobs that the accounting knows.

    Args:
        jobs: Jobs and arrays, by their numbers.
        environ: This process's environment variables.
        clusters: Other clusters than this one, as --clusters names them.

    Raises:
        SlurmError: There is no accounting, or it gives no answer.
    """
    asked = ",".join(dict.fromkeys(jobs))
    command = ["sacct", *client.at(clusters), "--duplicates", "--parsable2", "--noheader", f"--format={FIELDS}"]
    return parse_consumed(client.ask([*command, f"--jobs={asked}"], environ)) if asked else []


def parse_consumed(text: str) -> list[Consumed]:
    """What sacct has printed: below a line for each life stand those of its steps."""
    lives: list[tuple[list[str], dict[str, int | None]]] = []
    for fields in (line.split("|") for line in text.splitlines()):
        if len(fields) != 4:
            continue
        job, _, step = fields[0].partition(".")
        if not step:
            lives.append((fields, {}))
        elif lives and lives[-1][0][0] == job:
            lives[-1][1][step] = _joules(fields[3])
    return [
        Consumed(job, _time(begin), _time(end), _of_life(_joules(whole), steps))
        for (job, begin, end, whole), steps in lives
    ]


def _of_life(whole: int | None, steps: Mapping[str, int | None]) -> int | None:
    """No node twice: the step that has all nodes for as long as the job lasts, or the one that has taken most."""
    told = {step: joules for step, joules in steps.items() if joules}
    return told.get(EXTERN) or max(told.values(), default=whole)


def _joules(text: str) -> int | None:
    """None for nothing, for what stands for it, and for 0, which Slurm prints where nobody measures."""
    joules = int(text) if text.isdecimal() else 0
    return joules if 0 < joules < MOST_JOULES and joules not in UNKNOWN else None


def _time(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
