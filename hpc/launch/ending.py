"""An attempt on this machine has ended: why, and does its point go on? Decided as in a batch script."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpc.attempt.budgets import spent
from hpc.attempt.cause import OOM
from hpc.config import Settings
from hpc.errors import HpcError, NoProgressError
from hpc.run.directory import RunDirectory
from hpc.run.events import Ended, Event
from hpc.run.journal import Journal, read_journal_and_parts
from hpc.run.json_lines import json_objects
from hpc.run.lives import commits, first_failure
from hpc.slurm.why import AGAIN, IF_ASKED, NOTHING, Life, Verdict, why


@dataclass(frozen=True)
class Ending:
    """What follows from the end of an attempt.

    Args:
        verdict: Why it has ended.
        code: The exit code of the point; 76 where it has begun too often.
        goes_on: Whether another attempt follows.
        limit: The setting that ends it, as a clause; "" where none does.
    """

    verdict: Verdict
    code: int
    goes_on: bool
    limit: str = ""


def ending(directory: Path, job: str, settings: Settings, code: int, is_told_to_end: bool, is_late: bool) -> Ending:
    """Judge the end of an attempt, and tell the journal.

    Args:
        directory: The point's.
        job: A part of the attempt's name.
        settings: The point's.
        code: The exit code of its ranks, not 0.
        is_told_to_end: Whether a person has cancelled the point, or stopped its queue.
        is_late: Whether its time limit has come.
    """
    try:
        events = read_journal_and_parts(directory)
        life = _life(directory, events, job, code)
        verdict = why(_record(is_told_to_end, is_late), life)
        asked = verdict.follows == AGAIN or (verdict.follows == IF_ASKED and settings.launch.retry_exceptions)
        limit = spent(events, verdict.budget, settings) if asked else ""
        goes_on, code = asked and not limit, life.meant_code
        told = Ended(code, verdict.name, AGAIN if goes_on else NOTHING, verdict.budget, commits(events))
        Journal(directory, f"submitit-local.{job}-0").write(told)
    except HpcError as error:  # the journal cannot be read or written: nobody could count how often it begins
        return Ending(Verdict("unknown", NOTHING, NOTHING, str(error)), code, goes_on=False)
    return Ending(verdict, NoProgressError.exit_code if limit else code, goes_on, limit)


def _life(directory: Path, events: Iterable[Event], job: str, code: int) -> Life:
    failed = first_failure(event for event in events if job in event.attempt)
    if _lacked_memory(directory, job):
        return Life(code, failure="out of memory")
    return Life(code) if failed is None else Life(code, 0, failed.reason, failed.code, failed.is_echo)


def _lacked_memory(directory: Path, job: str) -> bool:
    """Whether the report of the attempt says so: where the kernel has killed a rank for memory, none can tell."""
    with suppress(OSError):
        reports = [
            each for path in RunDirectory(directory).failures.glob(f"*{job}*.json") for each in json_objects(path)
        ]
        return any(isinstance(each.get("cause"), dict) and each["cause"].get("kind") == OOM for each in reports)
    return False


def _record(is_told_to_end: bool, is_late: bool) -> dict[str, str]:
    """What a controller of Slurm would say of the job."""
    return {
        "JobState": "COMPLETING" if is_told_to_end or is_late else "RUNNING",
        "Reason": "TimeLimit" if is_late else "None",
        "Restarts": "0",
        "PreemptTime": "None",
    }
