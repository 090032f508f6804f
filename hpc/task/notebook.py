"""What each process that `notebook_launcher` starts runs: the notebook's function, as one rank."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import cloudpickle

from hpc.attempt.attempt import explain_process
from hpc.connect.process_group import close_process_group, meet
from hpc.errors import EXIT_CONTINUE
from hpc.launch.notebook import CALL, FAILURE, RESULT
from hpc.world import World


def _be_a_rank(directory: Path) -> None:
    """What each process runs."""
    function, args = cloudpickle.loads((directory / CALL).read_bytes())
    world = explain_process().world
    try:
        result = function(*args)
    except SystemExit as stop:
        if stop.code != EXIT_CONTINUE:
            raise
        result = None
    except BaseException:  # whatever it is, the notebook must show it
        _note_failure(directory, world)
        os._exit(1)  # at once: another rank may wait for this one
    if world.rank == 0:
        (directory / RESULT).write_bytes(cloudpickle.dumps(result))
    meet()
    close_process_group()


def _note_failure(directory: Path, world: World) -> None:
    """The first to fail is the cause; what follows on other ranks is its echo."""
    try:
        with (directory / FAILURE).open("x") as file:
            file.write(f"rank {world.rank} of {world.world_size} failed first:\n{traceback.format_exc()}")
    except FileExistsError:
        pass


if __name__ == "__main__":
    _be_a_rank(Path(sys.argv[1]))
