from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from torch.distributed import HashStore

from hpc.connect.interface import address_towards, choose_interface, interface_of
from hpc.connect.sealed import SealedStore
from hpc.errors import WorldError
from hpc.world import World
from tests.conftest import clean_environment
from tests.support.rendezvous_ranks import world_of

gloo = pytest.mark.gloo

DEVICES = """
import os, sys
from hpc.config import RuntimeOptions
from hpc.errors import WorldError
from hpc.connect.process_group import open_process_group, take_place
from hpc.attempt.attempt import process_secret
from hpc.world import resolve_world
from hpc.connect.place import Place

import torch

world = resolve_world(os.environ)
group = open_process_group(world, process_secret(world), RuntimeOptions(device="cpu"), os.environ)
threads = torch.get_num_threads()
cpus = len(os.sched_getaffinity(0))
try:
    take_place(group, Place("node1", (0,), sys.argv[1 + world.rank]))
    print(f"fine {threads} of {cpus}")
except WorldError as error:
    print(f"rank {world.rank}: {error}")
"""


def two_ranks(*uuids: str, bound: tuple[int, int] | None = None, **extra: str) -> list[str]:
    """What two ranks of a gloo world print, each with a pretended GPU, and perhaps bound to a CPU of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    processes = []
    for rank in (0, 1):
        environ = {**clean_environment(), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", **extra}
        environ["RANK"] = str(rank)
        prefix = ["taskset", "--cpu-list", str(bound[rank])] if bound else []
        command = [*prefix, sys.executable, "-c", DEVICES, *uuids]
        processes.append(subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True))
    return [process.communicate(timeout=120)[0].strip().splitlines()[-1] for process in processes]


@gloo
def test_every_rank_refuses_a_world_in_which_two_share_a_gpu() -> None:
    for rank, said in enumerate(two_ranks("GPU-a", "GPU-a")):
        assert said.startswith(f"rank {rank}: Every rank must have a GPU of its own, but 1 GPU(s) are shared (node1: ")
        assert "ranks 0, 1 on GPU-a" in said


@gloo
def test_ranks_that_see_the_same_cpus_share_them() -> None:
    cpus = len(os.sched_getaffinity(0))
    share = max(1, cpus // 2)
    assert two_ranks("GPU-a", "GPU-b", OMP_NUM_THREADS="") == [f"fine {share} of {cpus}"] * 2


@gloo
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_ranks_with_cpus_of_their_own_use_all_of_these() -> None:
    first, second = sorted(os.sched_getaffinity(0))[:2]
    assert two_ranks("GPU-a", "GPU-b", bound=(first, second), OMP_NUM_THREADS="") == ["fine 1 of 1"] * 2


def outside() -> str:
    """An address of this machine that is not loopback."""
    address = address_towards(socket.gethostname())
    if address is None or address.startswith("127."):
        address = address_towards("198.51.100.1")  # a documentation network: whatever interface leads outside
    if address is None:
        pytest.skip("this machine has no network")
    return address


def chosen(worlds: list[World], asked: str | None = None) -> list[str | None]:
    """The interface that gloo is told on each rank; ranks are threads that share a store."""
    store = SealedStore(HashStore(), b"")

    def choose(world: World) -> str | None:
        environ: dict[str, str] = {}
        choose_interface(environ, world, store, asked)
        return environ.get("GLOO_SOCKET_IFNAME")

    with ThreadPoolExecutor(len(worlds)) as pool:
        return list(pool.map(choose, worlds))


def two_nodes(*masters: str) -> list[World]:
    """Two nodes of one rank, which know nothing but what MASTER_ADDR is to each of them."""
    ranks = [replace(world, node_rank=world.rank, node_count=2) for world in world_of(2)]
    return [replace(world, hosts=(master,)) for world, master in zip(ranks, masters, strict=True)]


def test_one_node_stays_on_loopback() -> None:
    assert chosen(world_of(2)) == ["lo", "lo"]


def test_the_interface_leads_to_another_host_of_the_step() -> None:
    worlds = world_of(2, hosts=("127.0.0.2", outside()))
    on_first = next(world for world in worlds if world.node_rank == 0)
    assert chosen([on_first]) == [interface_of(outside())]


@pytest.mark.parametrize("own", ["localhost", "127.0.0.1", "127.0.1.1"])
def test_the_host_that_master_addr_names_asks_the_others_for_the_way(own: str) -> None:
    assert chosen(two_nodes(own, outside())) == [interface_of(outside())] * 2


def test_loopback_is_never_chosen_for_several_nodes() -> None:
    assert chosen(two_nodes("localhost", "127.0.0.1")) == [None, None]


@pytest.mark.parametrize("asked", ["lo", "127.0.0.0/8", "127.0.0.1"])
def test_the_interface_asked_for_is_taken(asked: str) -> None:
    assert chosen(world_of(2, hosts=("127.0.0.2", outside())), asked) == ["lo", "lo"]


def test_an_interface_that_is_not_here_is_refused() -> None:
    with pytest.raises(WorldError, match=r"runtime\.interface must be .* but is ib7\."):
        chosen(world_of(2)[:1], "ib7")


def test_what_the_user_told_gloo_stays() -> None:
    environ = {"GLOO_SOCKET_IFNAME": "ib0"}
    choose_interface(environ, world_of(2)[0], SealedStore(HashStore(), b""))
    assert environ == {"GLOO_SOCKET_IFNAME": "ib0"}
