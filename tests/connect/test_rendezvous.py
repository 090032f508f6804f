from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import HashStore, TCPStore

from hpc.connect.beacon import Beacon, Endpoint, Identity
from hpc.connect.rendezvous import open_store
from hpc.errors import WorldError
from hpc.run.secret import Secret
from hpc.world import World, resolve_world
from tests.conftest import clean_environment
from tests.connect.test_beacon import HERE, Neighbour, listeners
from tests.support.rendezvous_ranks import SECRET, have_met, start_ranks, world_of

gloo = pytest.mark.gloo


def identity(world: World) -> Identity:
    """What the ranks of a test's world derive their ladder from."""
    return Identity(world.job, world.attempt, os.getuid(), SECRET.value)


def free_port() -> int:
    """A port that was free just now."""
    with socket.create_server((HERE, 0)) as server:
        return int(server.getsockname()[1])


def errors(worlds: list[World], **options: Any) -> list[str]:
    """What each rank says when they are started together."""
    return [outcome.error for outcome in start_ranks(worlds, **options)]


def test_a_world_of_one_needs_no_network() -> None:
    assert isinstance(open_store(resolve_world({}), SECRET).plain, HashStore)


@gloo
@pytest.mark.parametrize("size", [2, 5, 64])
def test_ranks_of_one_machine_meet(size: int) -> None:
    worlds = world_of(size)
    assert have_met(worlds, start_ranks(worlds))


@gloo
@pytest.mark.parametrize(
    "hosts",
    [
        ("127.0.0.2", "127.0.0.3"),
        ("127.0.0.7", "127.0.0.6", "127.0.0.5"),
        ("no-such-host.invalid", "localhost"),
    ],
)
def test_rank_zero_need_not_be_on_the_first_host(hosts: tuple[str, ...]) -> None:
    worlds = world_of(4, hosts)
    assert have_met(worlds, start_ranks(worlds))


@gloo
def test_silent_listeners_on_the_ladder_are_no_obstacle() -> None:
    worlds = world_of(3)
    with listeners(identity(worlds[0]).ports[:6]):
        assert have_met(worlds, start_ranks(worlds))


@gloo
def test_foreign_stores_on_the_ladder_are_no_obstacle() -> None:
    worlds = world_of(3)
    seconds = timedelta(seconds=10)
    foreign = [
        TCPStore(HERE, port, is_master=True, wait_for_workers=False, timeout=seconds)
        for port in identity(worlds[0]).ports[:3]
    ]
    assert have_met(worlds, start_ranks(worlds))
    assert all(store.num_keys() <= 1 for store in foreign)


@gloo
def test_a_strangers_beacon_on_the_ladder_is_passed_over() -> None:
    worlds = world_of(3)
    stranger = Neighbour("stranger", 0, os.getuid(), SECRET.value, ladder=identity(worlds[0]).ports)
    with Beacon(stranger, Endpoint(HERE, 1), [HERE]):
        assert have_met(worlds, start_ranks(worlds))


@gloo
def test_a_predecessor_that_is_still_alive_is_not_joined() -> None:
    worlds = world_of(3, attempt=1)
    before = replace(identity(worlds[0]), attempt=0)
    with ExitStack() as stack:
        stack.enter_context(Beacon(before, Endpoint(HERE, 1), [HERE]))
        borrowed = Neighbour(before.job, 0, before.user, before.secret, ladder=identity(worlds[0]).ports)
        stack.enter_context(Beacon(borrowed, Endpoint(HERE, 1), [HERE]))
        assert have_met(worlds, start_ranks(worlds))


@gloo
def test_two_jobs_at_once_stay_apart() -> None:
    first, second = world_of(3), world_of(3)
    outcomes = start_ranks([*first, *second])
    assert have_met(first, outcomes[:3])
    assert have_met(second, outcomes[3:])


@gloo
@pytest.mark.parametrize("interface", ["lo", "127.0.0.8", "127.0.0.0/8"])
def test_a_named_interface_is_listened_on_and_advertised(interface: str) -> None:
    worlds = world_of(3)
    assert have_met(worlds, start_ranks(worlds, interface=interface))


@gloo
def test_a_host_suffix_names_the_fabric() -> None:
    worlds = world_of(2, hosts=("local",))
    assert have_met(worlds, start_ranks(worlds, host_suffix="host"))


@gloo
@pytest.mark.parametrize("given", [False, True])
def test_ranks_with_another_secret_are_told_at_once(given: bool) -> None:
    """Where an address was given they meet in rank 0's store; elsewhere rank 0's beacon turns them away."""
    worlds = world_of(3, master=(HERE, free_port()) if given else None)
    secrets = [SECRET, SECRET, Secret(b"of another home", "/home/other/secret")]
    first, second, third = start_ranks(worlds, secrets, timeout_seconds=60 if given else 3)
    if given:
        assert first.error.startswith(
            "Rank 2 must have rank 0's secret, but has another: every rank must have the same"
        )
        assert second.error == first.error
        assert third.error.startswith("hello/0 in the ranks' store must be written by one of them, but is not: every")
    else:
        assert first.error.endswith("see the output of rank 2.")
        assert third.error.startswith("Rank 2 of 3 must find rank 0, but nobody answered for job test.")
    assert "this one took it from /home/other/secret: where the nodes share no home directory, export" in third.error


@gloo
def test_whoever_came_names_the_ranks_that_did_not() -> None:
    worlds = world_of(5)
    for error in errors([worlds[0], worlds[1], worlds[3]], timeout_seconds=1.5):
        assert re.search(r"All 5 ranks must come .*, but 2 did not in \d+ s: see the output of rank 2, 4\.", error)


@gloo
def test_without_rank_zero_the_hosts_and_ports_that_were_tried_are_named() -> None:
    worlds = world_of(3, hosts=("127.0.0.2", "127.0.0.3"))
    ports = ", ".join(str(port) for port in identity(worlds[0]).ports)
    for error in errors(worlds[1:], timeout_seconds=1):
        assert f"on host 127.0.0.2, 127.0.0.3, ports {ports}: see whether rank 0 started" in error


@gloo
def test_a_rank_that_was_started_twice_is_an_error_for_everybody() -> None:
    worlds = world_of(3)
    found = errors([worlds[0], worlds[1], worlds[1]], timeout_seconds=20)
    assert all("Every rank must be started once, but rank 1 of" in error for error in found)


@gloo
@pytest.mark.parametrize("size", [2, 5])
def test_ranks_meet_at_an_address_that_was_given(size: int) -> None:
    worlds = world_of(size, master=(HERE, free_port()))
    assert have_met(worlds, start_ranks(worlds))


@gloo
def test_a_rank_missing_at_a_given_address_is_named() -> None:
    worlds = world_of(3, master=(HERE, free_port()))
    for error in errors(worlds[:2], timeout_seconds=1.5):
        assert "1 did not in" in error
        assert error.endswith("see the output of rank 2.")


def test_a_given_port_that_is_taken_is_named() -> None:
    with socket.create_server((HERE, 0)) as server:
        port = server.getsockname()[1]
        world = world_of(2, master=(HERE, port))[0]
        with pytest.raises(WorldError, match=f"must reach the store at {HERE}:{port}, .* must be free on this host"):
            open_store(world, SECRET, timeout_seconds=2)


def test_a_given_address_where_nobody_is_is_named() -> None:
    port = free_port()
    world = world_of(2, master=(HERE, port))[1]
    with pytest.raises(
        WorldError, match=f"Rank 1 must reach the store at {HERE}:{port}, but cannot: check MASTER_ADDR"
    ):
        open_store(world, SECRET, timeout_seconds=1)


def test_a_signal_reaches_a_rank_that_waits_at_a_given_address() -> None:
    program = (
        "import signal, sys\nfrom hpc.connect.rendezvous import open_store\n"
        "from tests.support.rendezvous_ranks import SECRET, world_of\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\nprint('waiting', flush=True)\n"
        f"open_store(world_of(2, master=('{HERE}', {free_port()}))[1], SECRET, timeout_seconds=600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], env=clean_environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5)
        process.terminate()
        assert process.wait(60) == 3


@gloo
def test_a_rank_may_be_at_the_given_address_before_rank_zero() -> None:
    worlds = world_of(2, master=(HERE, free_port()))
    with ThreadPoolExecutor() as pool:
        early = pool.submit(open_store, worlds[1], SECRET, timeout_seconds=60)
        time.sleep(0.5)
        store = open_store(worlds[0], SECRET, timeout_seconds=60)
        store.set("key", "value")
        assert early.result().get("key") == "value"


def test_attempts_that_share_an_agents_store_do_not_share_keys() -> None:
    agent = TCPStore(HERE, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=10))
    lives = []
    for attempt in (0, 1):
        worlds = world_of(2, master=(HERE, agent.port), attempt=attempt, agent_store=True)
        with ThreadPoolExecutor() as pool:
            lives.append(next(pool.map(lambda world: open_store(world, SECRET, timeout_seconds=30), worlds)))
    lives[0].set("key", "old")
    assert not lives[1].has("key")


@gloo
def test_ranks_that_torchrun_started_meet(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pathlib\nfrom hpc.world import resolve_world\nfrom hpc.connect.rendezvous import open_store\n"
        "from hpc.attempt.attempt import process_secret\n"
        "world = resolve_world(os.environ)\nstore = open_store(world, process_secret(world), timeout_seconds=60)\n"
        "store.set(str(world.rank), world.source)\nmet = (store.get('0') + store.get('1')).encode()\n"
        "pathlib.Path(f'rank{world.rank}').write_bytes(met)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, timeout=120, check=True)
    assert [(tmp_path / name).read_text() for name in ("rank0", "rank1")] == ["torchruntorchrun"] * 2


def test_the_beacon_is_out_once_all_ranks_came() -> None:
    worlds = world_of(2)
    with ThreadPoolExecutor() as pool:
        stores = list(pool.map(lambda world: open_store(world, SECRET, timeout_seconds=30), worlds))
    assert "hpc-beacon" not in {thread.name for thread in threading.enumerate()}
    stores[1].set("key", "value")
    assert stores[0].get("key") == "value"


def test_a_ladder_without_a_free_rung_is_named() -> None:
    world = world_of(2)[0]
    ports = identity(world).ports
    with (
        listeners(ports),
        pytest.raises(WorldError, match=f"One of the ports {ports[0]}, .* on rank 0's host, but none"),
    ):
        open_store(world, SECRET, timeout_seconds=1)


def test_an_unknown_interface_is_refused_with_the_known_ones() -> None:
    with pytest.raises(WorldError, match=r"an interface of this host \(.*lo.*\), but is ib7"):
        open_store(world_of(2)[0], SECRET, interface="ib7", timeout_seconds=1)


def test_an_address_of_another_host_is_refused() -> None:
    with pytest.raises(WorldError, match=r"runtime.interface must be of rank 0's host, but 192.0.2.1 is not"):
        open_store(world_of(2)[0], SECRET, interface="192.0.2.1", timeout_seconds=1)


def test_a_world_without_hosts_is_refused() -> None:
    with pytest.raises(WorldError, match=r"hosts of test.* must be known to find rank 0, but test lists none"):
        open_store(replace(world_of(2)[1], hosts=()), SECRET, timeout_seconds=1)


def test_a_store_that_goes_away_before_all_came_is_an_error() -> None:
    server = TCPStore(HERE, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=10))
    world = replace(world_of(2)[1], master=(HERE, server.port))
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(open_store, world, SECRET, timeout_seconds=30)
        while not server.check(["attempt-0/hello/1"]):
            time.sleep(0.01)
        del server
        with pytest.raises(WorldError, match="Rank 0 must keep the store until every rank is there, but it went away"):
            waiting.result()
