"""Where does rank 0 listen? Rank 0 answers on a few known ports, and only to those who know the ranks' secret.

Every rank computes the same short list of ports (the ladder) from the job's identity, which anybody may know. Rank 0
opens its beacon on the first port of the list that is free. The other ranks connect to all these ports on the likely
hosts and wait for the beacon to speak first:

    beacon    greeting, whose beacon it is, and a fresh number
    rank      a fresh number, and a proof over both numbers
    beacon    a proof over both numbers and the store's address, and that address

So it does no harm when another program listens on one of the ports, whether it is silent, is a server of another kind,
or pretends to be rank 0. All ports are listened to at once and nobody is waited for: see ANSWER_SECONDS.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

from hpc.connect.sealed import PROOF_BYTES, prove

FIRST_PORT, PORT_COUNT, RUNGS = 20_000, 10_000, 8
"""Below the ports that Linux hands out by itself (32768 and up), so that only another server can be in the way."""

ANSWER_SECONDS = 0.5
"""A beacon answers within milliseconds. Give up on a host that drops packets, or on a silent listener, after this."""

MOST_GUESTS = 256
"""A beacon that has more guests at once shows out the one that came first."""

NONCE_BYTES = 16
REFUSAL = b"another secret\n"
_GREETING = b"hpc beacon 2\n"
_TAG_BYTES = 16


@dataclass(frozen=True)
class Identity:
    """What the ranks of one attempt of one job have in common, and no other process has.

    Args:
        job: `World.job`.
        attempt: `World.attempt`; an earlier attempt whose processes are still ending has another number.
        user: Numeric user id.
        secret: What anybody who knows the rest does not know.
    """

    job: str
    attempt: int
    user: int
    secret: bytes = field(repr=False)

    @property
    def key(self) -> bytes:
        """Of the proofs between these ranks, 32 bytes."""
        return prove(self.secret, b"ranks", self._digest("ranks"))

    @property
    def greeting(self) -> bytes:
        """What a beacon says first: whose it is, for everybody to see. A fresh number follows."""
        return _GREETING + self._digest("greeting")[:_TAG_BYTES]

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
        store: What they are told. An empty address means the one at which the rank has come in.
        addresses: Where to listen; an empty one means everywhere.

    Attributes:
        port: The port of the ladder that was free.

    Raises:
        OSError: Every port of the ladder is taken.
    """

    def __init__(self, identity: Identity, store: Endpoint, addresses: Sequence[str] = ("",)) -> None:
        self._key, self._greeting, self._store = identity.key, identity.greeting, store
        self._listeners = _first_free(addresses, identity.ports)
        self.port: int = self._listeners[0].getsockname()[1]
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
            for each in (self._stopped, *self._listeners):
                each.setblocking(False)
                selector.register(stack.enter_context(each), selectors.EVENT_READ)
            while not self._serve_once(selector):
                pass
            _show_out(selector, _guests(selector))

    def _serve_once(self, selector: selectors.BaseSelector) -> bool:
        """Greet new connections and answer proofs; returns whether it is time to stop."""
        for key, _ in selector.select(ANSWER_SECONDS):
            if key.fileobj is self._stopped:
                return True
            if key.fileobj in self._listeners:
                self._greet(selector, key.fileobj)
            elif isinstance(key.fileobj, socket.socket):
                selector.unregister(key.fileobj)
                with key.fileobj as guest, suppress(OSError):
                    self._answer(guest, key.data[0])
        guests = _guests(selector)
        old = [key for key in guests if time.monotonic() - key.data[1] > ANSWER_SECONDS]
        _show_out(selector, old or guests[: max(0, len(guests) - MOST_GUESTS)])
        return False

    def _greet(self, selector: selectors.BaseSelector, listener: Any) -> None:
        with suppress(OSError):
            guest, _ = listener.accept()
            nonce = secrets.token_bytes(NONCE_BYTES)
            guest.setblocking(False)
            selector.register(guest, selectors.EVENT_READ, (nonce, time.monotonic()))
            guest.send(self._greeting + nonce)

    def _answer(self, guest: socket.socket, nonce: bytes) -> None:
        """Tell the store to a rank that has proved itself.

        A proof that does not come in one piece is not waited for: a rank of ours sends it in one and would knock again.
        """
        reply = guest.recv(NONCE_BYTES + PROOF_BYTES)
        theirs, proof = reply[:NONCE_BYTES], reply[NONCE_BYTES:]
        if hmac.compare_digest(proof, prove(self._key, b"rank", nonce, theirs)):
            address = self._store.address or guest.getsockname()[0].removeprefix("::ffff:")
            body = json.dumps([address, self._store.port]).encode()
            guest.send(prove(self._key, b"beacon", nonce, theirs, body) + body)
        else:
            guest.send(REFUSAL)


def _guests(selector: selectors.BaseSelector) -> list[selectors.SelectorKey]:
    """Who has come and has not proved itself yet, in the order of coming."""
    return sorted((key for key in selector.get_map().values() if key.data), key=lambda key: float(key.data[1]))


def _show_out(selector: selectors.BaseSelector, guests: Sequence[selectors.SelectorKey]) -> None:
    for key in guests:
        selector.unregister(key.fileobj)
        cast("socket.socket", key.fileobj).close()


def _first_free(addresses: Sequence[str], ports: Sequence[int]) -> list[socket.socket]:
    for port in ports:
        try:
            with ExitStack() as stack:
                found = [stack.enter_context(listen(address, port)) for address in addresses]
                stack.pop_all()
                return found
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, "every port is taken")
