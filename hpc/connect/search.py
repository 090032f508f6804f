"""How does a rank find rank 0's beacon? It knocks at the ports of the ladder on the likely hosts, again and again.

A beacon speaks first, so that nothing is ever said to a server of another kind; see `hpc.connect.beacon` for what is
said. A rank listens to all the ports of a host at once, and waits for none of them in particular.
"""

from __future__ import annotations

import errno
import hmac
import json
import random
import secrets
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

from hpc.connect.beacon import ANSWER_SECONDS, NONCE_BYTES, Endpoint, Identity
from hpc.connect.sealed import PROOF_BYTES, prove

NEAR_HOSTS = 16
"""This many hosts are asked in every round; the hosts after them are asked in fewer and fewer rounds."""

KNOCKS_PER_SECOND = 20_000
"""The most that all ranks of a world together may knock on one host."""

LONGEST_ANSWER = 256
"""Bytes: an address and a port."""


def find_beacon(
    hosts: Sequence[str],
    identity: Identity,
    deadline: float,
    world_size: int = 1,
    doubt: Callable[[str], None] = lambda _: None,
) -> Endpoint | None:
    """Ask the hosts in rounds until the beacon is found; None when it was not.

    Rank 0 is on the first host unless tasks were placed by hand (`srun -m arbitrary`), so the hosts at the end of the
    list are asked rarely.

    Args:
        hosts: Names or addresses, the likeliest first.
        identity: Whose beacon.
        deadline: When to give up, in `time.monotonic()` seconds.
        world_size: How many ranks are asking; many of them ask less often.
        doubt: Told where a beacon says that it is this job's and does not know the secret; it is passed over.
    """
    for width, pause_seconds in search_rounds(world_size):
        for host in hosts[:width]:
            endpoint = ask_host(host, identity, doubt)
            if endpoint or time.monotonic() > deadline:
                return endpoint
        time.sleep(max(0.0, min(pause_seconds, deadline - time.monotonic())))
    return None


def search_rounds(world_size: int) -> Iterator[tuple[int, float]]:
    """For each round: how many hosts to ask, and how long to pause after it. Round 2^k asks 4^k hosts."""
    number, pause_seconds, shortest = 0, 0.01, world_size / KNOCKS_PER_SECOND
    while True:
        number += 1
        is_far = number & (number - 1) == 0
        yield max(NEAR_HOSTS, number**2 if is_far else 0), max(shortest, pause_seconds) * random.uniform(0.5, 1.5)
        pause_seconds = min(1.0, pause_seconds * 1.3)


def ask_host(host: str, identity: Identity, doubt: Callable[[str], None] = lambda _: None) -> Endpoint | None:
    """Connect to every port of the ladder on one host, and return what the beacon tells; None where there is no beacon.

    Returns within twice ANSWER_SECONDS, and at once where every port refuses. A name that cannot be resolved is passed
    over. For `doubt`, see `find_beacon`.
    """
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for family, address in _addresses(host):
            for port in identity.ports:
                knock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                knock.setblocking(False)
                if knock.connect_ex((address[0], port, *address[2:])) in (0, errno.EINPROGRESS):
                    selector.register(knock, selectors.EVENT_READ, _Knock(knock, identity, f"{host}:{port}", doubt))
        return _first_answer(selector)


def _addresses(host: str) -> list[tuple[int, tuple[str, int, int, int]]]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))  # type: ignore[misc]


def _first_answer(selector: selectors.BaseSelector) -> Endpoint | None:
    start = time.monotonic()
    while selector.get_map():
        was_greeted = any(key.data.numbers for key in selector.get_map().values())
        left = start + ANSWER_SECONDS * (1 + was_greeted) - time.monotonic()
        if left <= 0:
            return None
        for key, _ in selector.select(left):
            if not key.data.hears_on():
                selector.unregister(key.fileobj)
            if key.data.endpoint:
                return cast("Endpoint", key.data.endpoint)
    return None


@dataclass
class _Knock:
    """A rank's side of one exchange, in which it never waits.

    Args:
        beacon: Connected, or about to be.
        identity: Whose beacon it should be.
        where: It is, for people.
        doubt: See `find_beacon`.

    Attributes:
        numbers: The beacon's fresh one and this rank's, once it has greeted.
        endpoint: What it told.
    """

    beacon: socket.socket
    identity: Identity
    where: str
    doubt: Callable[[str], None]
    numbers: tuple[bytes, bytes] | None = None
    endpoint: Endpoint | None = None

    def hears_on(self) -> bool:
        """Take what the beacon has said; returns whether more is to come."""
        try:
            return self._takes_greeting() if self.numbers is None else self._takes_answer(self.numbers)
        except OSError:
            return False

    def _takes_greeting(self) -> bool:
        size = len(self.identity.greeting)
        said = self.beacon.recv(size + NONCE_BYTES)
        greeting, theirs, ours = said[:size], said[size:], secrets.token_bytes(NONCE_BYTES)
        if greeting != self.identity.greeting or len(theirs) < NONCE_BYTES:
            return False
        self.numbers = theirs, ours
        self.beacon.send(ours + prove(self.identity.key, b"rank", theirs, ours))
        return True

    def _takes_answer(self, numbers: tuple[bytes, bytes]) -> bool:
        answer = self.beacon.recv(PROOF_BYTES + LONGEST_ANSWER)
        proof, body = answer[:PROOF_BYTES], answer[PROOF_BYTES:]
        if hmac.compare_digest(proof, prove(self.identity.key, b"beacon", *numbers, body)):
            self.endpoint = Endpoint(*json.loads(body))
        elif answer:  # nothing is what a beacon says that has no time, or goes out
            self.doubt(self.where)
        return False
