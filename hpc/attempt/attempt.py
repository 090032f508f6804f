"""The attempt that this process takes part in: begun once, and joined by whoever needs it."""

from __future__ import annotations

import faulthandler
import itertools
import os
import sys
import threading
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from hpc.attempt.identity import name_of, needs_stamp, new_stamp
from hpc.attempt.statement import statement_files
from hpc.environ import process_environ
from hpc.run.directory import RunDirectory
from hpc.run.journal import Journal
from hpc.run.secret import Secret, shared_secret
from hpc.stop.requests import StopRequests, stop_requests
from hpc.world import Explanation, World, explain_world
from hpc.world.resolve import AUTO

Agree = Callable[[str, str], str]
"""A key and this rank's proposal -> rank 0's proposal, on every rank. Collective."""


@dataclass(frozen=True)
class Attempt:
    """One life of a run, as one of its ranks sees it.

    Args:
        id: Its name, alike on all ranks; see `hpc.attempt.identity`.
        world: Which rank this is.
        secret: What its ranks prove themselves with.
        directory: The run directory.
        requests: Whether this process was told to stop.
        record: The report of its failure, beside which ranks that fail write down why. No file of an older attempt.
        environ: The process's environment variables, for libraries that are told in no other way.
        last_word: Held by the thread that says why this rank fails; until it is done no other thread ends the process.
    """

    id: str
    world: World
    secret: Secret
    directory: Path
    requests: StopRequests
    record: Path
    environ: MutableMapping[str, str] = field(repr=False)
    last_word: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def journal(self) -> Journal:
        """Where this rank tells what happens."""
        return Journal(self.directory, self.id, self.world.rank)


def prepare_process(environ: MutableMapping[str, str]) -> None:
    """What must be in place before torch is imported."""
    stop_requests()  # a signal may come in the seconds that the import takes
    if not faulthandler.is_enabled() and sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)  # a rank that crashes in C leaves its stack in the job's output
    environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else every rank warns of hosts without reverse DNS


def explain_process(launcher: str = AUTO) -> Explanation:
    """Which rank this process is, and who says so.

    Args:
        launcher: `runtime.launcher`.

    Raises:
        WorldError: Its environment variables do not describe one world.
    """
    return explain_world(process_environ(), launcher)


def process_secret(world: World, sweep: Path | None = None) -> Secret:
    """What the ranks of this process's world prove themselves with; see `hpc.run.secret.shared_secret`."""
    return shared_secret(world, process_environ(), sweep)


_numbers = itertools.count(1)


def begin(world: World, secret: Secret, directory: Path, agree: Agree, environ: MutableMapping[str, str]) -> Attempt:
    """The next attempt of this process. Nothing is written. All ranks must call it equally often.

    Args:
        world: Which rank this is.
        secret: What its ranks prove themselves with.
        directory: The run directory.
        agree: Called where several ranks must choose a name that their launcher has not given them.
        environ: The process's environment variables.
    """
    number = next(_numbers)
    parts = [name_of(world, environ)]
    if needs_stamp(world):
        stamp = new_stamp()
        parts.append(agree(f"hpc/attempt/{number}", stamp) if world.world_size > 1 else stamp)
    elif number > 1:
        parts.append(str(number))
    identity = ".".join(parts)
    return Attempt(identity, world, secret, directory, stop_requests(), _unused(directory, identity), environ)


def _unused(directory: Path, identity: str) -> Path:
    """The record of this attempt. Where a shell starts the program twice in one step, both have the same name."""
    again = (f"{identity}.again-{number}" for number in itertools.count(1))
    records = map(RunDirectory(directory).failure, itertools.chain([identity], again))
    return next(record for record in records if not os.path.lexists(record) and not statement_files(record))
