from __future__ import annotations

import pytest

from hpc.errors import WorldError
from hpc.world import World
from hpc.world.device import choose_device_index


def rank_of_four(local_rank: int) -> World:
    """One of four ranks on one node."""
    return World(local_rank, 4, local_rank, 4, 0, 1, ("node1",), "slurm", "lab.1.0")


@pytest.mark.parametrize(("visible", "local_rank", "index"), [(0, 3, None), (1, 3, 0), (4, 0, 0), (4, 3, 3), (8, 3, 3)])
def test_the_device_follows_from_how_many_are_visible(visible: int, local_rank: int, index: int | None) -> None:
    assert choose_device_index(visible, rank_of_four(local_rank)) == index


@pytest.mark.parametrize("visible", [2, 3])
def test_fewer_devices_than_ranks_are_refused(visible: int) -> None:
    with pytest.raises(
        WorldError, match=f"4 ranks of this node must see as many GPUs, but see {visible}: .*per-node=4"
    ):
        choose_device_index(visible, rank_of_four(0))
