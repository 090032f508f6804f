"""Which of the visible devices belongs to this rank?"""

from __future__ import annotations

from hpc.errors import WorldError
from hpc.world.value import World


def choose_device_index(visible: int, world: World) -> int | None:
    """The index of this rank's device among those it sees, or None for the CPU.

    Counts and nothing else: `SLURM_STEP_GPUS` holds global ids, which are no index where cgroups renumber, and
    `--gpus-per-task=1` shows each rank one device, called 0.

    Args:
        visible: How many devices torch sees in this process.
        world: This rank.

    Raises:
        WorldError: Several devices are visible, and fewer than there are ranks on this node.
    """
    if visible == 0:
        return None
    if visible == 1:
        return 0
    if visible >= world.local_world_size:
        return world.local_rank
    raise WorldError(
        f"The {world.local_world_size} ranks of this node must see as many GPUs, but see {visible}: ask for"
        f" --gpus-per-node={world.local_world_size}, or start fewer ranks with --ntasks-per-node={visible}."
    )
