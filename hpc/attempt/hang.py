"""What becomes of an attempt in which nobody goes on any more? It is written down, and ended with code 70."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from functools import partial

from hpc.attempt.attempt import Attempt
from hpc.attempt.failure import host_of, note_end
from hpc.config import RuntimeOptions
from hpc.errors import HungError
from hpc.run.directory import RunDirectory
from hpc.run.events import SlowRank
from hpc.run.pulse import Pulse, read_pulses
from hpc.say import fail, warn
from hpc.stop.activity import activity
from hpc.stop.files import RequestFiles
from hpc.stop.slow import SlowRanks, sentence
from hpc.stop.stacks import write_stacks
from hpc.stop.watchdog import Watchdog, Watched

LAST_SECONDS = 30.0
"""The most that it takes to write down what is known; the disk may be what hangs."""


def watchdog_of(attempt: Attempt, options: RuntimeOptions) -> Watchdog:
    """The watchdog of this rank; not started yet."""
    world = attempt.world
    first, count = world.rank - world.local_rank, world.local_world_size
    dealt = range(world.node_rank, world.world_size, world.node_count)[:count]  # srun --distribution=cyclic
    near = {*range(max(0, first), min(world.world_size, first + count)), *dealt}
    watched = Watched(attempt.id, attempt.directory, world.rank, host_of(world), frozenset(near))
    files, slow = RequestFiles(attempt.directory, attempt.requests), _slow_ranks(attempt, options)

    def look() -> None:
        files.look()
        slow.look(time.monotonic())
        attempt.requests.current()  # so that the clock is heard at the next step, however slow steps have become

    every_tick = look if world.rank == 0 else lambda: None
    return Watchdog(watched, activity(), options.hang_seconds, partial(_end_hung, attempt), every_tick)


def _slow_ranks(attempt: Attempt, options: RuntimeOptions) -> SlowRanks:
    def tell(found: SlowRank) -> None:
        attempt.journal.write(found)
        warn(f"{sentence(found)}.")

    def read() -> Collection[Pulse]:
        return read_pulses(attempt.directory, attempt.id).values()

    return SlowRanks(options.slow_rank_factor, attempt.world.world_size, read, tell)


def keep_stacks(attempt: Attempt) -> None:
    """Where another node has found that nobody goes on, keep the stacks of this node as well, before it ends."""
    hangs = RunDirectory(attempt.directory).hangs
    if any(hangs.glob(f"{attempt.id}.*")):
        _write_stacks(attempt, read_pulses(attempt.directory, attempt.id))


def _end_hung(attempt: Attempt, verdict: str, near: dict[int, Pulse]) -> None:
    """End this process, whatever its main thread does: the launcher ends the other ranks then."""
    last = threading.Timer(LAST_SECONDS, os._exit, [HungError.exit_code])
    last.daemon = True
    last.start()
    hung = HungError(f"{verdict}; stacks are in {RunDirectory(attempt.directory).hangs}/.")
    note_end(attempt, hung)
    fail(hung)
    _write_stacks(attempt, near)
    os._exit(HungError.exit_code)


def _write_stacks(attempt: Attempt, ranks: dict[int, Pulse]) -> None:
    path = RunDirectory(attempt.directory).hang(attempt.id, attempt.world.node_rank)
    with suppress(OSError):
        write_stacks(attempt.directory, path, ranks.values(), host_of(attempt.world))
