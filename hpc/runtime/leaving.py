"""How does a life end before its loop does? All ranks leave together; the exit code says whether there is another."""

from __future__ import annotations

from typing import NoReturn

from hpc.errors import EXIT_CONTINUE, EXIT_INTERRUPTED
from hpc.run.events import Stopped
from hpc.runtime.parts import Parts
from hpc.say import say
from hpc.stop.requests import StopCause

FROM_OUTSIDE = {StopCause.TIME_LIMIT, StopCause.SIGINT, StopCause.SIGTERM, StopCause.STOP_FILE}
"""What ends a life before its first step, too. SIGUSR2 does not: it comes while there is time for a step and a save,
and Slurm sends it up to a minute earlier than was asked, so that lives with a long start-up would take no step."""


def leave(parts: Parts, step: int, of: str, cause: StopCause, what: str) -> NoReturn:
    """End this life.

    Args:
        parts: The Runtime's.
        step: Optimizer steps taken.
        of: Of how many, as words.
        cause: What all ranks have agreed to.
        what: What has become of the state, as a verb.

    Raises:
        SystemExit: With 75, which asks for another life, or with 130, where a person wants none.
    """
    if parts.is_main:
        parts.journal.write(Stopped(step, cause.name))
        say(f"Stopped at step {step}{of} ({cause.name}) and {what}; run_dir={parts.directory} goes on from there.")
    raise SystemExit(EXIT_INTERRUPTED if cause is StopCause.STOP_FILE else EXIT_CONTINUE)


def leave_if_asked(parts: Parts, step: int) -> None:
    """Before the first step: what comes now may take long, as compiling does, and nothing is lost yet. Collective.

    Raises:
        SystemExit: As `leave`, where any rank was asked to stop while it built its model or loaded it.
    """
    cause = StopCause(max(parts.group.all_gather(int(parts.requests.current()))))
    if cause in FROM_OUTSIDE:
        leave(parts, step, "", cause, "has nothing new to save")
