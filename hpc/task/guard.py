"""Whatever an attempt ends with: it is said, written down, and becomes the exit code of the process."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from hpc.attempt.attempt import Attempt
from hpc.attempt.failure import code_of, note_failure
from hpc.errors import NO_FAILURES
from hpc.say import fail


def guarded(attempt: Attempt, body: Callable[[], object]) -> int:
    """Run the body of an attempt; returns the exit code that says how it ended."""
    try:
        body()
    except SystemExit as stop:
        if stop.code is not None and not isinstance(stop.code, int):  # Python says it where it ends the process itself
            sys.stderr.write(f"{stop.code}\n")
        if code_of(stop) not in NO_FAILURES:
            note_failure(attempt, stop)
        return code_of(stop)
    except BaseException as cause:  # whatever it is, the job's exit code must say so
        fail(cause)
        note_failure(attempt, cause)
        return code_of(cause)
    return 0


def leave(code: int) -> None:
    """End the process unless all is well, and do not touch the process group: after a failure nothing may block."""
    if code == 0:
        return
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
