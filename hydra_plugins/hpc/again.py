"""A command that is typed once more submits what is missing of its sweep. Imported only where Hydra launches for us."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Hydra imports this module in every app
    from hpc.run.points import Sweep
    from hpc.status.sweep import PointStatus
    from hpc.submit.merge import Merged

SUBMIT, RETRY, RUNNING, FINISHED = "submit", "retry", "running", "finished"


def submit_or_continue(sweep: Sweep) -> Sweep:
    """Submit a sweep, or what is missing of it where it is there already; returns it with its names there.

    Raises:
        ConfigurationError: Something cannot work as asked; nothing was submitted or written.
        SystemExit: Points ran on this machine and one of them failed; with its code.
    """
    from hpc.launch.dispatch import submit  # deferred, as above
    from hpc.run.listing import is_sweep  # deferred, as above
    from hpc.submit.merge import merged  # deferred, as above

    if sweep.points[0].settings.launch.dry_run or not is_sweep(sweep.directory):
        submit(sweep)
        return sweep
    found = merged(sweep)
    _continue(found)
    return found.typed


def _continue(found: Merged) -> None:
    """Show what follows from where the points stand, and submit what is missing."""
    from hpc.environ import process_environ  # deferred, as above
    from hpc.errors import ConfigurationError  # deferred, as above
    from hpc.launch.dispatch import submit_again  # deferred, as above
    from hpc.run.calls import Turn  # deferred, as above
    from hpc.say import say  # deferred, as above
    from hpc.status.sweep import check_slurm_answers, look  # deferred, as above
    from hpc.submit.settle import settle_before  # deferred, as above

    directory, force = found.typed.directory, found.typed.points[0].settings.launch.force
    settle_before(directory)
    turn = Turn(directory)
    status = look(directory, process_environ())
    check_slurm_answers(status)
    stand = {point.name: _part(point) for point in status.points}
    parts = {point.name: stand.get(point.name, SUBMIT) for point in found.typed.points}
    counts = Counter(RETRY if force and part == FINISHED else part for part in parts.values())
    say(f"Plan: {', '.join(f'{part} {counts[part]}' for part in (SUBMIT, RETRY, RUNNING, FINISHED) if counts[part])}.")
    if force and counts[RUNNING]:
        raise ConfigurationError(
            f"launch.force must be false while points wait or run, but is true, and {counts[RUNNING]} do: "
            f"end them with `hpc cancel`, or wait for them."
        )
    names = [name for name, part in parts.items() if part in (SUBMIT, RETRY) or (force and part == FINISHED)]
    if names:
        submit_again(found.sweep(names), names, True, turn, anew=names if force else ())


def _part(point: PointStatus) -> str:
    """A queue of this machine is asked by itself whether it still runs, and may have to be waited for."""
    from hpc.run.submissions import LOCAL  # deferred, as above
    from hpc.status.standing import FINISHED as IS_FINISHED  # deferred, as above
    from hpc.status.standing import PENDING, SAVING, UNSUBMITTED  # deferred, as above
    from hpc.status.standing import RUNNING as IS_RUNNING  # deferred, as above

    is_local = point.job is not None and point.job.submission.scheduler == LOCAL
    if point.state in (PENDING, IS_RUNNING, SAVING) and not is_local:
        return RUNNING
    return {IS_FINISHED: FINISHED, UNSUBMITTED: SUBMIT}.get(point.state, RETRY)
