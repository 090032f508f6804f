"""What a job starts in each of its tasks: `python -m hpc.submit.payload SWEEP POINT`. Nothing is pickled."""

from __future__ import annotations

import importlib
import sys

TASK = "hpc.task.entry"


def run_point(sweep_directory: str, point: str) -> None:
    """Run one point of a sweep in this task; see `hpc.task.entry.run`."""
    importlib.import_module(TASK).run(sweep_directory, point)


if __name__ == "__main__":
    run_point(*sys.argv[1:])
