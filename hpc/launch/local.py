"""This machine as a place for points: what fits is checked first, then they run here, or in a process of their own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hpc.environ import process_environ
from hpc.errors import ConfigurationError, LoadError
from hpc.launch.demand import demand_of
from hpc.launch.detached import start_detached
from hpc.launch.leases import lease_directory
from hpc.launch.machine import this_machine
from hpc.launch.queue import Place, Queue
from hpc.launch.record import Record, claim
from hpc.run.listing import is_sweep
from hpc.run.point import Point
from hpc.run.result import read_result
from hpc.say import say
from hpc.submit.container import check_no_container

__all__ = ["Place", "claimed", "place_for", "run"]
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"


def place_for(points: Sequence[Point]) -> Place:
    """This machine, if each of these points can run on it. Nothing of the sweep is written.

    Raises:
        ConfigurationError: A point cannot.
    """
    place = Place(this_machine(process_environ()), lease_directory(process_environ()))
    for point in points:
        check_no_container(point.settings)
        demand_of(point.settings, place.machine)
        if GPU_VARIABLE in point.settings.cluster.environment:
            raise ConfigurationError(
                f"cluster.environment must not have {GPU_VARIABLE} on this machine, because each point gets GPUs of "
                "its own there: export it before you start the sweep."
            )
    return place


@contextlib.contextmanager
def claimed(directory: Path, write: Callable[[], object] | None) -> Iterator[Record]:
    """Be the only queue of a sweep meanwhile.

    Args:
        directory: The sweep's.
        write: Writes the sweep, or goes on with the one that is there; None where that is done.

    Raises:
        ConfigurationError: The sweep has a queue already, or cannot be written.
    """
    record = claim(directory) if is_sweep(directory) else None
    try:
        if write is not None:
            write()
        record = record or claim(directory)
        yield record
    finally:
        if record is not None:
            os.close(record.descriptor)


def run(record: Record, points: Sequence[Point], place: Place) -> int:
    """Run those points that are not finished yet; returns the exit code of the whole.

    With launch.detach it returns at once, and another process runs them.

    Args:
        record: Of the sweep, whose queue this process is.
        points: Of the sweep; some may go elsewhere.
        place: See `place_for`.
    """
    left = [point for point in points if not _is_finished(record, point)]
    done = len(points) - len(left)
    if done and len(points) > 1:
        say(f"Finished already: {done} of {len(points)} points.")
    if left and points[0].settings.launch.detach:
        start_detached(record, left)
        return 0
    return Queue(record, left, place).run() if left else 0


def _is_finished(record: Record, point: Point) -> bool:
    directory = record.sweep / point.name
    try:
        result = read_result(directory)
    except LoadError:  # its own attempt says so, and ends with the code for it
        return False
    if result is not None:
        say(f"{directory} is finished: it returned {result.value}; choose another run_dir to train again.")
    return result is not None
