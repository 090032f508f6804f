from __future__ import annotations

import pytest

from hpc.connect.device import choose_device_index
from hpc.connect.place import Place, check_devices, cpu_advice, thread_count
from hpc.errors import WorldError
from hpc.world import World


def rank_of(local_rank: int = 0, local_world_size: int = 4, source: str = "slurm") -> World:
    """One of so many ranks on the only node."""
    return World(local_rank, local_world_size, local_rank, local_world_size, 0, 1, ("node1",), source, "lab.1.0")


def visible(devices: str | None, on_node: int = 8) -> int:
    """How many devices torch would see with this CUDA_VISIBLE_DEVICES on a node with so many."""
    return on_node if devices is None else len([device for device in devices.split(",") if device])


@pytest.mark.parametrize(("visible", "local_rank", "index"), [(0, 3, None), (1, 3, 0), (4, 0, 0), (4, 3, 3), (8, 3, 3)])
def test_the_device_follows_from_how_many_are_visible(visible: int, local_rank: int, index: int | None) -> None:
    assert choose_device_index(visible, rank_of(local_rank)) == index


@pytest.mark.parametrize("visible", [2, 3])
def test_fewer_devices_than_ranks_are_refused(visible: int) -> None:
    with pytest.raises(WorldError, match=f"4 ranks of this node must see as many GPUs, but see {visible}: .*node=4"):
        choose_device_index(visible, rank_of(0))


@pytest.mark.parametrize(
    ("layout", "indices"),
    [
        pytest.param(["0,1,2,3"] * 4, [0, 1, 2, 3], id="--gpus-per-node=4"),
        pytest.param(["4,5,6,7"] * 4, [0, 1, 2, 3], id="a shared node, another job has 0 to 3"),
        pytest.param(["0", "1", "2"], [0, 0, 0], id="--gpus-per-task=1"),
        pytest.param(["0,1,2,3"], [0], id="--gpus-per-task=1, the node with one task is given all four"),
        pytest.param([None] * 3, [0, 1, 2], id="--gpus-per-task=1 --gpu-bind=none, nothing is set"),
        pytest.param(["0,1,2,3,4,5,6,7"] * 3, [0, 1, 2], id="tasks 3,1: the node with three"),
        pytest.param(["0,1,2,3,4,5,6,7"], [0], id="tasks 3,1: the node with one"),
        pytest.param(["GPU-8932f937,GPU-5a1c7d22"] * 2, [0, 1], id="by UUID"),
        pytest.param(["MIG-1", "MIG-2"], [0, 0], id="one slice per task"),
        pytest.param([""] * 2, [None, None], id="no GPU"),
    ],
)
def test_every_layout_gives_each_rank_of_a_node_an_index(layout: list[str | None], indices: list[int | None]) -> None:
    found = [
        choose_device_index(visible(devices), rank_of(local_rank, len(layout)))
        for local_rank, devices in enumerate(layout)
    ]
    assert found == indices


def places(*uuids: str, host: str = "node1") -> list[Place]:
    """Ranks of one host on these GPUs."""
    return [Place(host, (0, 1), uuid) for uuid in uuids]


@pytest.mark.parametrize(
    "good",
    [
        places("GPU-a", "GPU-b"),
        places("", ""),
        [*places("GPU-a"), *places("GPU-a", host="node2")],
        [],
    ],
)
def test_ranks_with_gpus_of_their_own_are_fine(good: list[Place]) -> None:
    check_devices(good)


def test_two_ranks_on_one_gpu_are_refused_by_host_rank_and_uuid() -> None:
    with pytest.raises(
        WorldError,
        match=r"own, but 1 GPU\(s\) are shared \(node1: ranks 1, 3 on GPU-b\): ask for as many GPUs as ranks",
    ):
        check_devices(places("GPU-a", "GPU-b", "GPU-c", "GPU-b"))


def test_many_shared_gpus_are_counted_and_a_few_are_named() -> None:
    uuids = [f"GPU-{number % 6}" for number in range(12)]
    with pytest.raises(
        WorldError, match=r"but 6 GPU\(s\) are shared \(node1: ranks 0, 6 on GPU-0; .*on GPU-3; and 2 more\)"
    ):
        check_devices(places(*uuids))


ALL = tuple(range(16))


@pytest.mark.parametrize(
    ("cpus", "threads"),
    [
        pytest.param([ALL] * 4, 4, id="all ranks may use every CPU"),
        pytest.param([ALL[:4], ALL[4:8], ALL[8:12], ALL[12:]], 4, id="each rank was bound to its share"),
        pytest.param([ALL[:8], ALL[:8], ALL[8:], ALL[8:]], 4, id="ranks were bound to sockets in pairs"),
        pytest.param([ALL[:3]] * 4, 1, id="fewer CPUs than ranks"),
        pytest.param([ALL], 16, id="alone"),
    ],
)
def test_threads_are_this_ranks_share_of_the_cpus_it_may_use(cpus: list[tuple[int, ...]], threads: int) -> None:
    all_places = [Place("node1", mask) for mask in cpus]
    assert thread_count(all_places[0], [*all_places, Place("node2", ALL)], rank_of(), {}) == threads


@pytest.mark.parametrize(
    ("environ", "source", "threads"),
    [
        ({"SLURM_CPUS_PER_TASK": "2"}, "slurm", 2),
        ({"SLURM_CPUS_PER_TASK": "6"}, "slurm", 4),
        ({"SLURM_CPUS_PER_TASK": "2"}, "torchrun", 4),
        ({"SLURM_CPUS_PER_TASK": "x"}, "slurm", 4),
        ({"OMP_NUM_THREADS": "3"}, "slurm", None),
        ({"OMP_NUM_THREADS": "1"}, "slurm", None),
        ({"OMP_NUM_THREADS": "3"}, "torchrun", None),
        ({"OMP_NUM_THREADS": "1"}, "torchrun", 4),
    ],
)
def test_what_was_asked_for_goes_before_the_share(environ: dict[str, str], source: str, threads: int | None) -> None:
    place = Place("node1", ALL)
    assert thread_count(place, [place] * 4, rank_of(source=source), environ) == threads


def test_fewer_cpus_than_were_asked_for_are_reported_with_the_fix() -> None:
    advice = cpu_advice(Place("node1", (0,)), rank_of(), {"SLURM_CPUS_PER_TASK": "8"})
    assert advice.startswith("SLURM_CPUS_PER_TASK is 8, but rank 0 may use 1 CPU(s) of node1: start it with `srun ")
    assert "--cpus-per-task=8`, or export SRUN_CPUS_PER_TASK=8" in advice


@pytest.mark.parametrize(
    ("environ", "source"),
    [({}, "slurm"), ({"SLURM_CPUS_PER_TASK": "2"}, "slurm"), ({"SLURM_CPUS_PER_TASK": "8"}, "torchrun")],
)
def test_enough_cpus_and_other_launchers_need_no_advice(environ: dict[str, str], source: str) -> None:
    assert cpu_advice(Place("node1", (0, 1)), rank_of(source=source), environ) == ""
