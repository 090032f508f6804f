"""A rank that meets the others on a real cluster, greets them, and writes down what it saw.

    python meeting.py DIRECTORY OPTIONS [absent RANK | linger]

OPTIONS is JSON for `open_store`. The rank `absent` never opens the store. With `linger` the first life leaves a
process behind that Slurm does not find, whose beacon burns on while the next life meets.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import psutil

from hpc.attempt.attempt import process_secret
from hpc.connect.rendezvous import open_store
from hpc.connect.sealed import SealedStore
from hpc.errors import WorldError
from hpc.world import World, resolve_world


def main(directory: Path, options: dict[str, object], mode: str = "", number: str = "") -> None:
    """Meet, and write `<job>.<attempt>.<rank>.json`."""
    world = resolve_world(os.environ)
    if mode == "absent" and world.rank == int(number):
        return
    if mode == "linger" and world.attempt == 0:
        _linger(world, directory)
    seen: dict[str, object] = {"rank": world.rank, "host": socket.gethostname(), "hosts": world.hosts}
    try:
        store = open_store(world, process_secret(world), **options)  # type: ignore[arg-type]
        seen |= {"greetings": _greet(store, world), "peers": _peers(), "listens": _listens()}
        _leave_together(store, world)
    except WorldError as error:
        seen["error"] = str(error)
    (directory / f"{world.job}.{world.attempt}.{world.rank}.json").write_text(json.dumps(seen))


def _greet(store: SealedStore, world: World) -> list[str]:
    store.set(f"greeting/{world.rank}", f"{world.job} {world.attempt} {world.rank}")
    return [store.get(f"greeting/{rank}") for rank in range(world.world_size)]


def _peers() -> list[str]:
    """The addresses that this process is connected to."""
    connections = [connection for connection in psutil.net_connections("tcp") if connection.pid == os.getpid()]
    return sorted({connection.raddr.ip.removeprefix("::ffff:") for connection in connections if connection.raddr})


def _listens() -> list[str]:
    """The addresses at which this process listens."""
    connections = [connection for connection in psutil.net_connections("tcp") if connection.pid == os.getpid()]
    listening = [connection.laddr for connection in connections if connection.status == psutil.CONN_LISTEN]
    return sorted({address.ip for address in listening if address})


def _leave_together(store: SealedStore, world: World) -> None:
    store.count("done", 1)
    while world.rank == 0 and store.count("done", 0) < world.world_size:
        time.sleep(0.05)


def _linger(world: World, directory: Path) -> None:
    """Never returns. Orphaned twice, a process is nobody's child, and proctrack/linuxproc looks for children."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if world.rank == 0 and os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):  # slurmstepd waits for the end of its tasks' output
            os.dup2(nothing, stream)
        (directory / "lingering").write_text(str(os.getpid()))
        open_store(world, process_secret(world), timeout_seconds=600)
    time.sleep(600)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), *sys.argv[3:])
