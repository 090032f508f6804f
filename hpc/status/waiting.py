"""Waits until every point of a sweep has ended."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path

from hpc.errors import EXIT_INTERRUPTED
from hpc.say import say, warn
from hpc.status.rows import is_done
from hpc.status.sweep import SweepStatus, look

FIRST_SECONDS, LAST_SECONDS = 1.0, 15.0
"""Between two looks; the controller is asked less often the longer it takes."""


def wait_for(directory: Path, environ: Mapping[str, str]) -> SweepStatus:
    """Look at a sweep until nothing of it is queued or runs.

    Args:
        directory: The sweep's.
        environ: This process's environment variables, for squeue.

    Raises:
        SystemExit: With 130, after Ctrl-C; it is said what still runs.
        LoadError: The sweep's files are damaged.
    """
    try:
        return _watched(directory, environ)
    except KeyboardInterrupt:
        left = _left(look(directory, environ))
        shown = shlex.quote(str(directory))
        warn(
            f"Not waiting any more, but {len(left)} point(s) of {directory} are still queued or run "
            f"({', '.join(left[:8])}{', …' if len(left) > 8 else ''}): `hpc cancel {shown}` ends them, and "
            f"`hpc status --watch {shown}` shows when they have ended."
        )
        raise SystemExit(EXIT_INTERRUPTED) from None


def _watched(directory: Path, environ: Mapping[str, str]) -> SweepStatus:
    status, seconds = look(directory, environ), FIRST_SECONDS
    if left := _left(status):
        say(f"Waiting for {len(left)} point(s) in {directory}.")
    while _left(status):
        time.sleep(seconds)
        seconds = min(seconds * 1.5, LAST_SECONDS)
        status = look(directory, environ)
    return status


def _left(status: SweepStatus) -> list[str]:
    return [point.name for point in status.points if not is_done(point.state)]
