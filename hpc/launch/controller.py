"""Watches the ranks of one local job: a dead rank ends the others, and its code is the job's.

What `srun --kill-on-bad-exit` does on a cluster.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from submitit.local.local import Controller

POLL_SECONDS = 0.05
KILL_WAIT_SECONDS = 4.0
"""Between SIGTERM and SIGKILL to the ranks that are left."""


class KillOnBadExit(Controller):
    """submitit's controller, with srun's manners.

    Args:
        folder: Of submitit's files.
        job_id: What the job is called there; submitit calls it by this process's id, which comes again.
    """

    def __init__(self, folder: Path, job_id: str) -> None:
        super().__init__(folder)
        self.pid = job_id

    def wait_for_code(self) -> int:
        """Wait until every rank is gone; returns the first code that was not 0, as 128+n for signal n."""
        first = 0
        deadline = float("inf")
        while any(task.poll() is None for task in self.tasks):
            if time.monotonic() > deadline:
                self._forward_signal(signal.SIGKILL)
            first = first or self._first_bad_code()
            if first and deadline == float("inf"):
                self._forward_signal(signal.SIGTERM)
                deadline = time.monotonic() + KILL_WAIT_SECONDS
            time.sleep(POLL_SECONDS)
        return first or self._first_bad_code()

    def _first_bad_code(self) -> int:
        """Among tasks found dead in one poll, report a signal before an exit code: the others failed after it."""
        codes = sorted(task.poll() or 0 for task in self.tasks)
        return next((code if code > 0 else 128 - code for code in codes if code), 0)


def main(folder: str, job_id: str) -> int:
    """Run the tasks that the environment describes; returns the job's exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the ranks
    controller = KillOnBadExit(Path(folder), job_id)
    controller.start_tasks()
    try:
        return controller.wait_for_code()
    finally:
        controller.kill_tasks()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
