"""Is a process that was recorded still that process? Process ids come again."""

from __future__ import annotations

import os
import signal

from hpc.run.submissions import Process

SAME_SECONDS = 2.0
"""psutil computes when a process was started from the clock, which may have been set since."""


def this_process(pid: int) -> Process:
    """A process of this machine, as it is recorded.

    Raises:
        ProcessLookupError: It has ended.
    """
    import psutil  # deferred: most verbs look at no process

    try:
        return Process(os.uname().nodename, pid, psutil.Process(pid).create_time())
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError(3, "it has ended") from error


def is_running(process: Process) -> bool | None:
    """Whether it runs; None where it is on another host, and nobody can say."""
    import psutil  # deferred, as above

    if process.host != os.uname().nodename:
        return None
    try:
        now = psutil.Process(process.pid)
        return abs(now.create_time() - process.started) < SAME_SECONDS and now.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def stop(process: Process) -> bool:
    """Ask a process to stop, if it is still the one that was recorded; returns whether it was asked."""
    if not is_running(process):
        return False
    try:
        os.kill(process.pid, signal.SIGTERM)
    except OSError:
        return False
    return True
