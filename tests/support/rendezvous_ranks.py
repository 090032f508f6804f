"""Ranks as real processes, which open the store together and greet each other through it."""

from __future__ import annotations

import multiprocessing
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from typing import Any

from hpc.errors import WorldError
from hpc.run.secret import Secret
from hpc.world import World

LONGEST_SECONDS = 120
SECRET = Secret(b"of these ranks alone", "the test")


@dataclass(frozen=True)
class Outcome:
    """What one rank met: the ranks' greetings by rank, or the error."""

    rank: int
    greetings: tuple[str, ...] = ()
    error: str = ""


def world_of(size: int, hosts: tuple[str, ...] = ("127.0.0.1",), **fields: Any) -> list[World]:
    """All ranks of a fresh job, dealt to the hosts in turn, the last host first: rank 0 is on the last one."""
    job = f"test.{uuid.uuid4()}"
    local_size = -(-size // len(hosts))
    nodes = [len(hosts) - 1 - rank % len(hosts) for rank in range(size)]
    worlds = [
        World(rank, size, rank // len(hosts), local_size, nodes[rank], len(hosts), hosts, "test", job)
        for rank in range(size)
    ]
    return [replace(world, **fields) for world in worlds]


def start_ranks(worlds: Sequence[World], secrets: Sequence[Secret] = (), **options: Any) -> list[Outcome]:
    """Run these ranks at once, one process each, with one secret or each with its own; outcomes in their order."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hpc.connect.rendezvous"])
    barrier = context.Barrier(len(worlds))
    connections, processes = [], []
    for world, secret in zip(worlds, secrets or [SECRET] * len(worlds), strict=True):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_rank, args=(world, secret, options, barrier, theirs))
        process.start()
        theirs.close()
        connections.append(ours)
        processes.append(process)
    outcomes = [connection.recv() if connection.poll(LONGEST_SECONDS) else None for connection in connections]
    for process, connection in zip(processes, connections, strict=True):
        connection.close()
        process.join(LONGEST_SECONDS)
    return [outcome or Outcome(-1, error="said nothing") for outcome in outcomes]


def _rank(world: World, secret: Secret, options: dict[str, Any], barrier: Barrier, connection: Any) -> None:
    from hpc.connect.rendezvous import open_store  # the parent must not need torch

    barrier.wait(LONGEST_SECONDS)
    try:
        store = open_store(world, secret, **{"timeout_seconds": 60, **options})
        store.set(f"greeting/{world.rank}", f"{world.job} {world.attempt} {world.rank}")
        greetings = tuple(store.get(f"greeting/{rank}") for rank in range(world.world_size))
        connection.send(Outcome(world.rank, greetings))
    except WorldError as error:
        connection.send(Outcome(world.rank, error=str(error)))
    barrier.wait(LONGEST_SECONDS)


def have_met(worlds: Sequence[World], outcomes: Sequence[Outcome]) -> bool:
    """Whether every rank heard every rank of its own world, and nobody else."""
    expected = tuple(
        f"{world.job} {world.attempt} {world.rank}" for world in sorted(worlds, key=lambda each: each.rank)
    )
    return [outcome.greetings for outcome in outcomes] == [expected] * len(worlds)
