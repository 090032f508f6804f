"""What a job's task starts with: a look at the directory that its pickle lies in, before the pickle is loaded.

    python -m hpc.launch.start FOLDER WRITERS

A pickle is code. Whoever could write into its directory since it was sent would be the one whose code runs.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from submitit.core.submission import process_job

from hpc.errors import HpcError
from hpc.run.ownership import check_ownership, check_private
from hpc.say import fail


def command(python: str, folder: Path, writers: str) -> str:
    """The shell command of a task.

    Args:
        python: The interpreter, quoted.
        folder: submitit's.
        writers: cluster.run_dir_writers.
    """
    return f"{python} -u -m hpc.launch.start {shlex.quote(str(folder))} {shlex.quote(writers)}"


def main(folder: str, writers: str) -> None:
    """Run the task whose pickle lies in a folder of submitit's.

    Raises:
        SystemExit: With 78 where somebody else could have written the pickle.
    """
    try:
        check_ownership(Path(folder).parent, writers)
        check_private(Path(folder))
    except HpcError as error:
        fail(error)
        raise SystemExit(error.exit_code) from error
    process_job(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
