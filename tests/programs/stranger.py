"""Another user of the machine, who has read this code and knows everything about a job but its secret.

    python stranger.py squat PORT...              listen on these ports, say nothing
    python stranger.py pretend ADDRESS JOB USER N light rank 0's beacon on N of the job's ports
    python stranger.py disturb PORT...            half a word, garbage and nothing to each port, several times over
    python stranger.py forge PORT TRAP NAME...    write a pickle that leaves the file TRAP into a store, under NAMEs

Prints `ready` once it is done or in place, then waits for the end of its standard input. Needs no library but torch.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

GARBAGE = (b"", b"h", b"GET / HTTP/1.1\r\n\r\n", bytes(48), b"\xff" * 4096)
"""The empty one is a connection that stays open and says nothing."""


class Trap:
    """Whoever opens its pickle leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def squat(stack: ExitStack, *ports: str) -> None:
    """Take every port away."""
    for port in ports:
        stack.enter_context(socket.create_server(("127.0.0.1", int(port))))


def pretend(stack: ExitStack, address: str, job: str, user: str, count: str) -> None:
    """Rank 0's own code on the job's ladder, with a guessed secret."""
    from hpc.connect.beacon import Beacon, Endpoint, Identity

    for _ in range(int(count)):
        stack.enter_context(Beacon(Identity(job, 0, int(user), b""), Endpoint(address, 1), [address]))


def disturb(stack: ExitStack, *ports: str) -> None:
    """Ten of each kind at each port; all connections stay open."""
    for port in ports:
        for words in GARBAGE * 10:
            guest = stack.enter_context(socket.create_connection(("127.0.0.1", int(port)), timeout=10))
            guest.send(words)


def forge(_: ExitStack, port: str, trap: str, *names: str) -> None:
    """A client of torch's store needs no password."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", int(port), is_master=False, timeout=timedelta(seconds=30))
    for name in names:
        store.set(name, pickle.dumps(Trap(Path(trap)), protocol=0).decode())


WAYS: dict[str, Callable[..., None]] = {"squat": squat, "pretend": pretend, "disturb": disturb, "forge": forge}


def main(way: str, *words: str) -> None:
    """Do it, and stay."""
    with ExitStack() as stack:
        WAYS[way](stack, *words)
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
