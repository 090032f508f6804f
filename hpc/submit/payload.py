"""What is pickled into a job: this function and two strings, nothing of the user's."""

from __future__ import annotations

import importlib
import sys

TASK = "hpc.task.entry"


def run_point(sweep_directory: str, point: str) -> None:
    """Run one point of a sweep in the task that unpickled this; see `hpc.task.entry.run`."""
    importlib.import_module(TASK).run(sweep_directory, point)


if __name__ == "__main__":
    run_point(*sys.argv[1:])
