"""What a job starts in each of its tasks: `python -m hpc.submit.payload SWEEP POINT WRITERS`. Nothing is pickled."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from hpc.errors import HpcError
from hpc.run.ownership import check_ownership
from hpc.say import fail

TASK = "hpc.task.entry"


def run_point(sweep_directory: str, point: str) -> None:
    """Run one point of a sweep in this task; see `hpc.task.entry.run`."""
    importlib.import_module(TASK).run(sweep_directory, point)


def main(sweep_directory: str, point: str, writers: str) -> None:
    """Look at the directory before anything in it is believed, and run the point.

    Raises:
        SystemExit: With 78 where somebody else may write there.
    """
    try:
        check_ownership(Path(sweep_directory), writers)
    except HpcError as error:
        fail(error)
        raise SystemExit(error.exit_code) from error
    run_point(sweep_directory, point)


if __name__ == "__main__":
    main(*sys.argv[1:])
