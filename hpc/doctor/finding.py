"""What a check has found, and what it means for the exit code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

OK, NOTE, PROBLEM = "ok", "note", "problem"
LEVELS = (OK, NOTE, PROBLEM)
"""A promise holds; it holds, and somebody should know something; it does not hold."""
CLUSTER, HERE, JOB = "cluster", "this machine", "job"


@dataclass(frozen=True)
class Finding:
    """One sentence about one promise.

    Args:
        check: Name of the check, alike in every release.
        level: One of LEVELS.
        text: What was found.
        advice: What to do about it; "" where there is nothing to do.
        about: CLUSTER, HERE, JOB, or `partition` and its name.
    """

    check: str
    level: str
    text: str
    advice: str = ""
    about: str = CLUSTER


def exit_code(findings: Iterable[Finding]) -> int:
    """1 where there is a problem, else 0."""
    return int(any(finding.level == PROBLEM for finding in findings))
