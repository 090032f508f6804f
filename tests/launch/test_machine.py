"""Which GPUs are here, which are somebody's, and how many points fit."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from hpc.config import Hardware, Launch, RuntimeOptions, Settings
from hpc.errors import ConfigurationError
from hpc.launch.demand import Demand, demand_of, has_room, most_at_once
from hpc.launch.leases import lease, lease_directory
from hpc.launch.machine import Machine, this_machine, visible_gpus

TWO = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aa11)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-ab22)
"""
UNLIKE = TWO.replace("1: NVIDIA A100-SXM4-40GB", "1: NVIDIA T4")
SLICED = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aa11)
  MIG 3g.20gb     Device  0: (UUID: MIG-c1)
  MIG 3g.20gb     Device  1: (UUID: MIG-c2)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-ab22)
"""


@pytest.mark.parametrize(
    ("environ", "listing", "names"),
    [
        ({}, "", ()),
        ({}, TWO, ("GPU-aa11", "GPU-ab22")),
        ({}, SLICED, ("MIG-c1", "MIG-c2", "GPU-ab22")),
        ({"CUDA_VISIBLE_DEVICES": ""}, TWO, ()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, TWO, ()),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, TWO, ()),
        ({"CUDA_VISIBLE_DEVICES": "1"}, TWO, ("GPU-ab22",)),
        ({"CUDA_VISIBLE_DEVICES": "1, 0"}, TWO, ("GPU-ab22", "GPU-aa11")),
        ({"CUDA_VISIBLE_DEVICES": "0,0"}, TWO, ("GPU-aa11",)),
        ({"CUDA_VISIBLE_DEVICES": "0,7,1"}, TWO, ("GPU-aa11",)),
        ({"CUDA_VISIBLE_DEVICES": "GPU-ab"}, TWO, ("GPU-ab22",)),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a"}, TWO, ()),
        ({"CUDA_VISIBLE_DEVICES": "GPU-zz"}, TWO, ()),
        ({"CUDA_VISIBLE_DEVICES": "MIG-c2"}, SLICED, ("MIG-c2",)),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, "", ("0", "1")),
        ({"CUDA_VISIBLE_DEVICES": "MIG-GPU-aa11/1/0"}, "", ("MIG-GPU-aa11/1/0",)),
        ({"CUDA_VISIBLE_DEVICES": "1"}, UNLIKE, ("1",)),
        ({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, UNLIKE, ("GPU-ab22",)),
    ],
)
def test_gpus_are_those_that_cuda_would_see(environ: dict[str, str], listing: str, names: tuple[str, ...]) -> None:
    assert visible_gpus(environ, listing) == names


def test_the_machine_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\ncat <<'END'\n{TWO}END\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    machine = this_machine({})
    assert machine.gpus == ("GPU-aa11", "GPU-ab22")
    assert 1 <= machine.cpus <= (os.cpu_count() or 1)
    assert machine.memory_gb > 0
    command.write_text("#!/bin/sh\necho No devices were found\nexit 6\n")
    assert this_machine({}).gpus == ()


LAPTOP = Machine(8, 16.0, ())
LAPTOP_WITH_GPU = Machine(8, 16.0, ("GPU-a",))
SERVER = Machine(64, 512.0, tuple(f"GPU-{number}" for number in range(8)))


def settings(device: str = "auto", launch: Launch | None = None, **hardware: object) -> Settings:
    return Settings(
        hardware=Hardware(**hardware),  # type: ignore[arg-type]
        runtime=RuntimeOptions(device=device),
        launch=launch or Launch(),
    )


@pytest.mark.parametrize(
    ("machine", "asked", "at_once"),
    [
        (LAPTOP, settings(), 8),
        (LAPTOP, settings(tasks_per_node=1, cpus_per_task=1), 8),
        (LAPTOP, settings(tasks_per_node=2, cpus_per_task=2), 2),
        (LAPTOP, settings(tasks_per_node=1, memory_gb=5), 3),
        (LAPTOP, settings(tasks_per_node=1, memory_gb=0), 1),
        (LAPTOP, settings(tasks_per_node=8, cpus_per_task=16, memory_gb=960, gpus_per_node=8, device="cpu"), 1),
        (LAPTOP, settings(launch=Launch(max_parallel=3)), 3),
        (LAPTOP, settings(launch=Launch(max_parallel=100)), 20),
        (LAPTOP, settings(launch=Launch(max_parallel=100), memory_gb=5), 3),
        (LAPTOP_WITH_GPU, settings(), 1),
        (LAPTOP_WITH_GPU, settings(launch=Launch(max_parallel=3)), 1),
        (LAPTOP_WITH_GPU, settings(device="cpu"), 8),
        (LAPTOP_WITH_GPU, settings(tasks_per_node=2, cpus_per_task=1), 4),
        (SERVER, settings(tasks_per_node=1, gpus_per_node=1, cpus_per_task=16), 8),
        (SERVER, settings(tasks_per_node=1, gpus_per_node=1, memory_gb=120), 4),
        (SERVER, settings(tasks_per_node=4, gpus_per_node=4), 2),
        (SERVER, settings(nodes=2, tasks_per_node=3, gpus_per_node=3), 1),
        (SERVER, settings(tasks_per_node=2, device="cuda"), 4),
    ],
)
def test_as_many_points_run_at_once_as_fit(machine: Machine, asked: Settings, at_once: int) -> None:
    limit = asked.launch.max_parallel or 256
    assert most_at_once([demand_of(asked, machine)] * 20, limit, machine) == at_once


def test_a_small_point_passes_one_that_does_not_fit_yet() -> None:
    small, large = Demand(1, 1, 2.0, 0), Demand(1, 1, 15.0, 0)
    assert most_at_once([small, large, small], 256, LAPTOP) == 2
    assert has_room(Demand(1, 1, math.inf, 0), [], LAPTOP)
    assert not has_room(small, [Demand(1, 1, math.inf, 0)], LAPTOP)


@pytest.mark.parametrize("asked", [settings(gpus_per_node=9), settings(device="cuda", nodes=9, tasks_per_node=1)])
def test_more_gpus_than_there_are_is_one_sentence(asked: Settings) -> None:
    with pytest.raises(ConfigurationError, match=r"must have 9 GPU\(s\) to run on this machine, .* show 8"):
        demand_of(asked, SERVER)


def test_a_lease_is_of_all_or_of_none(tmp_path: Path) -> None:
    names = ("GPU-a", "MIG-GPU-b/1/0", "2")
    first = lease(names, 2, tmp_path)
    assert first is not None
    assert first.gpus == names[:2]
    assert lease(names, 2, tmp_path) is None
    last = lease(names, 1, tmp_path)
    assert last is not None
    assert last.gpus == ("2",)
    nothing = lease(names, 0, tmp_path)
    assert nothing is not None
    first.hand_over()
    again = lease(names, 2, tmp_path)
    assert again is not None
    assert again.gpus == names[:2]
    for each in (last, again):
        each.hand_over()


def test_leases_lie_where_nobody_else_writes(tmp_path: Path) -> None:
    place = tmp_path / "leases"
    assert lease_directory({"HPC_LEASES": str(place)}) == place
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o777)
    with pytest.raises(ConfigurationError, match="must be a directory that only you can write"):
        lease_directory({"HPC_LEASES": str(place)})
    link = tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ConfigurationError, match="must be a directory that only you can write"):
        lease_directory({"HPC_LEASES": str(link)})
    with pytest.raises(ConfigurationError, match="cannot be made: No such file or directory"):
        lease_directory({"HPC_LEASES": str(tmp_path / "no" / "where")})
