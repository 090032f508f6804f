"""How long until every rank holds the store: our beacon beside torch's env:// and torchrun's, in one run.

    python -m tests.benchmarks.rendezvous [ROUNDS [RANKS ...]]

All ranks are processes of this machine that imported torch before. In each round they start each way at one moment of
the clock, one way after the other; counted is the time until the last rank returns. torchrun's way is that of its
agents, one per node: `--nnodes=N --rdzv-backend=c10d`.

Every torch client asks DNS for its peer's name; a server that ignores bursts of questions adds 5 s to a round of any
way. Where root can, keep DNS out: `unshare --net sh -c "ip link set lo up; python -m tests.benchmarks.rendezvous"`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from typing import Any

from hpc.run.secret import Secret
from hpc.world import World

SECRET = Secret(b"the benchmark's", "the benchmark")
SIZES = (2, 16, 64)
ROUNDS = 7
HERE = "127.0.0.1"
HEAD_START_SECONDS = 0.3
"""From the order to the moment of the start, so that the order has reached every rank."""


@dataclass(frozen=True)
class Start:
    """One order to all ranks.

    Args:
        way: A key of WAYS.
        job: Unique.
        port: Free just now; for the ways that are told one.
        moment: When to begin, in `time.monotonic()` seconds, which all processes share.
    """

    way: str
    job: str
    port: int
    moment: float


def by_beacon(rank: int, size: int, start: Start) -> object:
    """As in a Slurm step: nobody told an address."""
    from hpc.connect.rendezvous import open_store

    return open_store(World(rank, size, rank, size, 0, 1, (HERE,), "benchmark", start.job), SECRET, timeout_seconds=120)


def by_given(rank: int, size: int, start: Start) -> object:
    """Ours, where MASTER_ADDR and MASTER_PORT are set."""
    from hpc.connect.rendezvous import open_store

    master = (HERE, start.port)
    world = World(rank, size, rank, size, 0, 1, (HERE,), "benchmark", start.job, master=master)
    return open_store(world, SECRET, timeout_seconds=120)


def by_env(rank: int, size: int, start: Start) -> object:
    """torch's, where MASTER_ADDR and MASTER_PORT are set."""
    from torch.distributed.rendezvous import rendezvous

    os.environ |= {"MASTER_ADDR": HERE, "MASTER_PORT": str(start.port)}
    return next(rendezvous("env://", rank, size))


def by_torchrun(rank: int, size: int, start: Start) -> object:
    """What each of torchrun's agents does before it starts its workers."""
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    endpoint = f"{HERE}:{start.port}"
    told = RendezvousParameters("c10d", endpoint, start.job, size, size, is_host=rank == 0)
    handler = get_rendezvous_handler(told)
    return handler.next_rendezvous().store, handler


WAYS: dict[str, tuple[str, Callable[[int, int, Start], object]]] = {
    "beacon": ("ours, no address given", by_beacon),
    "given": ("ours, address given", by_given),
    "env": ("torch env://", by_env),
    "torchrun": ("torchrun, one rank a node", by_torchrun),
}


def main() -> None:
    """Measure, and print milliseconds: the median over the rounds, and in brackets the slowest."""
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # before torch is imported, in the server that forks the ranks
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    sizes = tuple(int(word) for word in sys.argv[2:]) or SIZES
    times = {(way, size): found for size in sizes for way, found in _measure(size, rounds).items()}
    print(f"{'until every rank holds the store, ms':36}" + "".join(f"{f'{size} ranks':>18}" for size in sizes))
    for way, (title, _) in WAYS.items():
        cells = [times[way, size] for size in sizes]
        print(f"{title:36}" + "".join(f"{f'{statistics.median(cell):.0f} ({max(cell):.0f})':>18}" for cell in cells))


def _measure(size: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every round, by way."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hpc.connect.rendezvous", "torch.distributed.elastic.rendezvous.registry"])
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way, times in found.items():
            times.append(_time_one(context, size, way, f"benchmark.{os.getpid()}.{size}.{number}.{way}"))
    return found


def _time_one(context: ForkServerContext, size: int, way: str, job: str) -> float:
    """Fresh processes every time: a store that is closed in one round would be waited for in the next."""
    pipes = []
    for rank in range(size):
        ours, theirs = context.Pipe()
        context.Process(target=_rank, args=(rank, size, theirs), daemon=True).start()
        theirs.close()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()
    with socket.create_server((HERE, 0)) as server:
        port = server.getsockname()[1]
    start = Start(way, job, port, time.monotonic() + HEAD_START_SECONDS)
    for pipe in pipes:
        pipe.send(start)
    last = max(pipe.recv() for pipe in pipes)
    for pipe in pipes:
        pipe.close()
    return float(last - start.moment) * 1000


def _rank(rank: int, size: int, pipe: Any) -> None:
    pipe.send("ready")
    start = pipe.recv()
    time.sleep(max(0.0, start.moment - time.monotonic()))
    held = WAYS[start.way][1](rank, size, start)
    pipe.send(time.monotonic())
    with contextlib.suppress(EOFError):
        pipe.recv()  # nobody leaves before all hold it
    os._exit(held is None)  # torch takes seconds to close a store whose clients are still there


if __name__ == "__main__":
    main()
