"""Where does rank 0 listen? Rank 0 answers on a few known ports, and only to those who know the job.

Every rank computes the same short list of ports (the ladder) and the same token from the job's identity. Rank 0 opens
its beacon on the first port of the list that is free. The other ranks connect to all these ports on the likely hosts
and wait for the beacon to speak first. Then each side proves that it knows the token, before anything else is sent. So
it does no harm when another program listens on one of the ports: a silent listener is left after half a second, and
nothing is ever sent to a server of another kind.

The token protects against accidents, not against attackers: a job's identity is not secret.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import random
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType

FIRST_PORT, PORT_COUNT, RUNGS = 20_000, 10_000, 8
"""Below the ports that Linux hands out by itself (32768 and up), so that only another server can be in the way."""

ANSWER_SECONDS = 0.5
"""A beacon answers within milliseconds. Give up on a host that drops packets, or on a silent listener, after this."""

NEAR_HOSTS = 16
"""This many hosts are asked in every round; the hosts after them are asked in fewer and fewer rounds."""

KNOCKS_PER_SECOND = 20_000
"""The most that all ranks of a world together may knock on one host."""

_GREETING = b"hpc beacon 1\n"
_NONCE, _PROOF = 16, 32


@dataclass(frozen=True)
class Identity:
    """What the ranks of one attempt of one job have in common, and no other process has.

    Args:
        job: `World.job`.
        attempt: `World.attempt`; an earlier attempt whose processes are still ending has another number.
        user: Numeric user id.
    """

    job: str
    attempt: int
    user: int

    @property
    def token(self) -> bytes:
        """The key of both proofs, 32 bytes."""
        return self._digest("token")

    @property
    def ports(self) -> tuple[int, ...]:
        """The ladder: eight different ports, evenly spaced, the same on every rank."""
        start, stride = (int.from_bytes(self._digest(word)[:8], "big") for word in ("start", "stride"))
        step = 1 + stride % (PORT_COUNT // RUNGS - 1)
        return tuple(FIRST_PORT + (start + rung * step) % PORT_COUNT for rung in range(RUNGS))

    def _digest(self, purpose: str) -> bytes:
        return hashlib.sha256(json.dumps([purpose, self.job, self.attempt, self.user]).encode()).digest()


@dataclass(frozen=True)
class Endpoint:
    """Where the store listens: a numeric address and a port."""

    address: str
    port: int


def listen(address: str, port: int) -> socket.socket:
    """A listening socket; an empty address means every address, of both families where the kernel has both.

    Raises:
        OSError: The port is taken, or the address is not of this host.
    """
    if not address and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=1024)


class Beacon:
    """Tells the ranks of this job where the store is. A thread of it answers until the context ends.

    Args:
        identity: Only ranks with the same identity are told.
        store: What they are told. An empty address means the address through which the rank has connected.
        address: Where to listen; empty means everywhere.

    Attributes:
        port: The port of the ladder that was free.

    Raises:
        OSError: Every port of the ladder is taken.
    """

    def __init__(self, identity: Identity, store: Endpoint, address: str = "") -> None:
        self._token = identity.token
        self._body = json.dumps([store.address, store.port]).encode()
        self._listener = _first_free(address, identity.ports)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="hpc-beacon", daemon=True)

    def __enter__(self) -> Beacon:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.close()
        self._thread.join()

    def _serve(self) -> None:
        with ExitStack() as stack, selectors.DefaultSelector() as selector:
            stack.enter_context(self._listener)
            stack.enter_context(self._stopped)
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while not self._serve_once(selector):
                pass
            for guest in _guests(selector):
                guest.close()

    def _serve_once(self, selector: selectors.BaseSelector) -> bool:
        """Greet new connections and answer proofs; returns whether it is time to stop."""
        for key, _ in selector.select(ANSWER_SECONDS):
            if key.fileobj is self._stopped:
                return True
            if key.fileobj is self._listener:
                self._greet(selector)
            elif isinstance(key.fileobj, socket.socket):
                selector.unregister(key.fileobj)
                with key.fileobj as guest, suppress(OSError):
                    self._answer(guest, key.data[0])
        _show_out(selector)
        return False

    def _greet(self, selector: selectors.BaseSelector) -> None:
        with suppress(OSError):
            guest, _ = self._listener.accept()
            nonce = secrets.token_bytes(_NONCE)
            guest.setblocking(False)
            selector.register(guest, selectors.EVENT_READ, (nonce, time.monotonic()))
            guest.send(_GREETING + nonce)

    def _answer(self, guest: socket.socket, nonce: bytes) -> None:
        """Tell the store to a rank that has proved itself.

        A proof that does not come in one piece is not waited for: a rank of ours sends it in one and would knock again.
        """
        reply = guest.recv(_NONCE + _PROOF)
        theirs, proof = reply[:_NONCE], reply[_NONCE:]
        if hmac.compare_digest(proof, _prove(self._token, b"rank", nonce, theirs)):
            guest.send(_prove(self._token, b"beacon", nonce, theirs, self._body) + self._body)


def _guests(selector: selectors.BaseSelector) -> list[socket.socket]:
    return [key.fileobj for key in selector.get_map().values() if key.data and isinstance(key.fileobj, socket.socket)]


def _show_out(selector: selectors.BaseSelector) -> None:
    """Close connections that have sent nothing for too long."""
    for guest in _guests(selector):
        if time.monotonic() - selector.get_key(guest).data[1] > ANSWER_SECONDS:
            selector.unregister(guest)
            guest.close()


def _first_free(address: str, ports: Sequence[int]) -> socket.socket:
    for port in ports:
        try:
            return listen(address, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, "every port is taken")


def _prove(token: bytes, side: bytes, *parts: bytes) -> bytes:
    return hmac.digest(token, side + b"".join(parts), "sha256")


def find_beacon(hosts: Sequence[str], identity: Identity, deadline: float, world_size: int = 1) -> Endpoint | None:
    """Ask the hosts in rounds until the beacon is found; None when it was not.

    Rank 0 is on the first host unless tasks were placed by hand (`srun -m arbitrary`), so the hosts at the end of the
    list are asked rarely.

    Args:
        hosts: Names or addresses, the likeliest first.
        identity: Whose beacon.
        deadline: When to give up, in `time.monotonic()` seconds.
        world_size: How many ranks are asking; many of them ask less often.
    """
    for width, pause_seconds in search_rounds(world_size):
        for host in hosts[:width]:
            endpoint = ask_host(host, identity)
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


def ask_host(host: str, identity: Identity) -> Endpoint | None:
    """Connect to every port of the ladder on one host, and return what the beacon tells; None where there is no beacon.

    Returns within ANSWER_SECONDS, and at once where every port refuses. A name that cannot be resolved is passed over.
    """
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for family, address in _addresses(host):
            for port in identity.ports:
                knock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                knock.setblocking(False)
                if knock.connect_ex((address[0], port, *address[2:])) in (0, errno.EINPROGRESS):
                    selector.register(knock, selectors.EVENT_READ)
        return _first_answer(selector, identity.token)


def _addresses(host: str) -> list[tuple[int, tuple[str, int, int, int]]]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))  # type: ignore[misc]


def _first_answer(selector: selectors.BaseSelector, token: bytes) -> Endpoint | None:
    deadline = time.monotonic() + ANSWER_SECONDS
    while selector.get_map() and time.monotonic() < deadline:
        for key, _ in selector.select(deadline - time.monotonic()):
            selector.unregister(key.fileobj)
            if isinstance(key.fileobj, socket.socket):
                with suppress(OSError):
                    endpoint = _converse(key.fileobj, token)
                    if endpoint:
                        return endpoint
    return None


def _converse(beacon: socket.socket, token: bytes) -> Endpoint | None:
    """The rank's side of the exchange; None as soon as the other side turns out not to be this job's beacon."""
    beacon.settimeout(ANSWER_SECONDS)
    greeting = beacon.recv(len(_GREETING) + _NONCE)
    if not greeting.startswith(_GREETING):
        return None
    theirs, ours = greeting[len(_GREETING) :], secrets.token_bytes(_NONCE)
    beacon.sendall(ours + _prove(token, b"rank", theirs, ours))
    reply = beacon.recv(4096)
    proof, body = reply[:_PROOF], reply[_PROOF:]
    if not hmac.compare_digest(proof, _prove(token, b"beacon", theirs, ours, body)):
        return None
    address, port = json.loads(body)
    return Endpoint(address or beacon.getpeername()[0], port)
