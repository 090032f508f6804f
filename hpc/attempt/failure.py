"""What does a rank do when it fails? It says so, and an echo of another rank's failure leaves last."""

from __future__ import annotations

import contextlib
import os
import time

from hpc.attempt.attempt import Attempt
from hpc.attempt.report import report_failure, settle
from hpc.attempt.statement import Statement, read_statements, statement, statement_files, write_statement
from hpc.errors import HpcError, SaveError
from hpc.run.events import Failed
from hpc.say import described
from hpc.stop.activity import activity
from hpc.stop.requests import StopCause
from hpc.world import World

POLL_SECONDS = 0.05
ECHO_SECONDS = 2.0
"""How long a rank that lost another one stays: the first to leave ends the step, also for the rank that knows why."""
LAST_WORD_SECONDS = 1.0
"""How long a rank that is told to end may take to say what it fails of, where nobody has said that yet."""


def code_of(cause: BaseException) -> int:
    """The exit code that tells what has happened."""
    if isinstance(cause, SystemExit):
        return cause.code if isinstance(cause.code, int) else int(cause.code is not None)
    return cause.exit_code if isinstance(cause, HpcError) else 1


def note_failure(attempt: Attempt, cause: BaseException) -> None:
    """Write down the failure of this rank, and what all ranks together have said; see `hpc.attempt.report`.

    A rank that fails because another one has gone stays for a moment, until that one has said why.
    """
    with attempt.last_word:
        _note(attempt, cause)


def note_end(attempt: Attempt, cause: BaseException) -> None:
    """Likewise, by a thread that ends the process afterwards: from here on the others leave that to it.

    The main thread may fail meanwhile, because another rank dies when it is asked for its stacks.
    """
    attempt.last_word.acquire()
    _note(attempt, cause)


def leave_if_another_failed(attempt: Attempt) -> None:
    """On SIGTERM: where another rank has failed it is not a preemption, and a save would wait for that rank.

    A rank that is failing itself leaves with its own words and code.
    """
    there = attempt.record.exists() or statement_files(attempt.record)
    deadline = time.monotonic() + (0 if _is_known(attempt) else LAST_WORD_SECONDS)
    while there and not attempt.last_word.locked():
        if time.monotonic() >= deadline:
            os._exit(1)
        time.sleep(POLL_SECONDS)


def host_of(world: World) -> str:
    """This rank's node, by the name that Slurm has for it, or else its own."""
    is_slurms = world.source.startswith(("slurm", "srun")) and len(world.hosts) == world.node_count
    return world.hosts[world.node_rank] if is_slurms else os.uname().nodename


def _note(attempt: Attempt, cause: BaseException) -> None:
    world = attempt.world
    told = statement(world.rank, host_of(world), code_of(cause), cause, described(cause), activity())
    with contextlib.suppress(OSError, SaveError):  # the disk is gone: the code remains
        if write_statement(attempt.record, told):
            _report(attempt, told)
    if told.is_echo and world.world_size > 1:
        _wait_for_the_cause(attempt)


def _report(attempt: Attempt, told: Statement) -> None:
    """The journal has the failures of ranks that may be the cause: one that failed by itself, or the first echo."""
    size = attempt.world.world_size
    found = report_failure(attempt.record, size)
    is_cause = found is not None and found.rank == told.rank
    may_tell = told.exception != "SystemExit"  # an exit code that a program has chosen is no exception of its
    if may_tell and (is_cause or len(statement_files(attempt.record)) == 1):
        attempt.journal.write(Failed(told.rank, told.code, told.reason, told.is_echo))
    if size == 1:
        settle(attempt.record)


def _is_known(attempt: Attempt) -> bool:
    """Whether a rank has said that it failed by itself."""
    return any(not each.is_echo for each in read_statements(statement_files(attempt.record)))


def _wait_for_the_cause(attempt: Attempt) -> None:
    deadline = time.monotonic() + ECHO_SECONDS
    while time.monotonic() < deadline and not _is_known(attempt) and attempt.requests.cause is not StopCause.SIGTERM:
        time.sleep(POLL_SECONDS)
