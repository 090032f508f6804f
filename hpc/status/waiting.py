"""Waits until every point of a sweep has ended."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path

from hpc.say import say, warn
from hpc.status.rows import is_done
from hpc.status.sweep import SweepStatus, look

INTERRUPTED_CODE = 130
"""128 + SIGINT."""
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
    seconds = FIRST_SECONDS
    status = look(directory, environ)
    try:
        if any(not is_done(point.state) for point in status.points):
            say(f"Waiting for {len(status.points)} point(s) in {directory}.")
        while any(not is_done(point.state) for point in status.points):
            time.sleep(seconds)
            seconds = min(seconds * 1.5, LAST_SECONDS)
            status = look(directory, environ)
    except KeyboardInterrupt:
        left = [point.name for point in status.points if not is_done(point.state)]
        shown = shlex.quote(str(directory))
        warn(
            f"Not waiting any more, but {len(left)} point(s) of {directory} are still queued or run "
            f"({', '.join(left[:8])}{', …' if len(left) > 8 else ''}): `hpc cancel {shown}` ends them, and "
            f"`hpc status --watch {shown}` waits for them."
        )
        raise SystemExit(INTERRUPTED_CODE) from None
    return status
