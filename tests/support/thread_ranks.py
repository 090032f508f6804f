"""Ranks that are threads of one process: the real protocol of a save, without a world of processes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hpc.errors import HpcError
from hpc.world import World

PATIENCE_SECONDS = 60.0


class _Table:
    """Where ranks lay their values, all at the same time."""

    def __init__(self, size: int) -> None:
        self.values: list[Any] = [None] * size
        self.barrier = threading.Barrier(size)

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.values[rank] = value
        self.barrier.wait(PATIENCE_SECONDS)
        found = [*self.values]
        self.barrier.wait(PATIENCE_SECONDS)
        return found


@dataclass
class ThreadRank:
    """One of them, as a Group of those who save together."""

    world: World
    table: _Table

    def broadcast(self, value: Any) -> Any:
        return self.table.exchange(self.world.rank, value)[0]

    def gather(self, value: Any) -> list[Any]:
        found = self.table.exchange(self.world.rank, value)
        return found if self.world.rank == 0 else []

    def all_gather(self, value: Any) -> list[Any]:
        return self.table.exchange(self.world.rank, value)


def on_ranks(size: int, program: Callable[[ThreadRank], Any]) -> list[Any]:
    """What each rank returns, or the HpcError that it ends with, by rank."""
    table = _Table(size)
    outcomes: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            outcomes[rank] = program(ThreadRank(World(rank, size, rank, size, 0, 1, ("here",), "test", "0"), table))
        except HpcError as error:
            outcomes[rank] = error
        except BaseException:
            table.barrier.abort()
            raise

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes
