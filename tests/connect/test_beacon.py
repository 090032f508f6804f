from __future__ import annotations

import itertools
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.connect.beacon import (
    FIRST_PORT,
    PORT_COUNT,
    RUNGS,
    Beacon,
    Endpoint,
    Identity,
    listen,
)
from hpc.connect.sealed import prove
from hpc.connect.search import ask_host, find_beacon, search_rounds

HERE = "127.0.0.1"
STORE = Endpoint("", 4711)
GREETING = b"hpc beacon 2\n"


@dataclass(frozen=True)
class Neighbour(Identity):
    """A job whose ladder happens to be another's."""

    ladder: tuple[int, ...] = ()

    @property
    def ports(self) -> tuple[int, ...]:
        """The other's rungs."""
        return self.ladder


@contextmanager
def listeners(ports: tuple[int, ...], greeting: bytes = b"") -> Iterator[list[socket.socket]]:
    """Foreign servers on these ports that say nothing, or one thing, and keep what is said to them."""
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server((HERE, port))) for port in ports]
        for server in servers if greeting else ():
            stack.enter_context(greeter(server, greeting))
        yield servers


@contextmanager
def greeter(server: socket.socket, greeting: bytes) -> Iterator[None]:
    """Greet one guest of a server from a thread."""

    def greet() -> None:
        guest, _ = server.accept()
        with guest, suppress(ConnectionError):  # who is not convinced hangs up
            guest.sendall(greeting)
            guest.recv(1)

    thread = threading.Thread(target=greet)
    thread.start()
    try:
        yield
    finally:
        with socket.create_connection(server.getsockname(), timeout=5):
            pass
        thread.join()


def heard(server: socket.socket) -> bytes:
    """Everything that the first guest of a silent server said before it left."""
    server.settimeout(5)
    guest, _ = server.accept()
    with guest:
        guest.settimeout(5)
        return guest.recv(1000)


@pytest.fixture
def job() -> Identity:
    """A job that no other test has, so that its ladder is free but for bad luck."""
    return Identity(f"test.{uuid.uuid4()}", 0, 1000, b"what the ranks know")


IDENTITIES = st.builds(Identity, st.text(max_size=20), st.integers(0, 9), st.integers(0, 70000), st.binary(max_size=3))


@given(IDENTITIES)
def test_a_ladder_has_different_ports_below_the_ephemeral_range(identity: Identity) -> None:
    assert len(set(identity.ports)) == RUNGS == 8
    assert all(FIRST_PORT <= port < FIRST_PORT + PORT_COUNT == 30_000 for port in identity.ports)


@given(st.sets(IDENTITIES, min_size=2))
def test_no_two_identities_share_a_key(identities: set[Identity]) -> None:
    assert len({identity.key for identity in identities}) == len(identities)


def test_a_beacon_tells_where_the_store_is(job: Identity) -> None:
    with Beacon(job, STORE, [HERE]):
        assert ask_host(HERE, job) == Endpoint(HERE, 4711)


def test_an_advertised_address_goes_before_the_one_that_was_dialled(job: Identity) -> None:
    with Beacon(job, Endpoint("10.0.0.7", 4711), [HERE]):
        assert ask_host(HERE, job) == Endpoint("10.0.0.7", 4711)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.9"])
def test_a_beacon_on_every_address_is_found_through_each(job: Identity, host: str) -> None:
    with Beacon(job, STORE):
        assert ask_host(host, job) is not None


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this kernel has no IPv6")
def test_a_beacon_on_every_address_is_found_through_ipv6(job: Identity) -> None:
    with Beacon(job, STORE):
        assert ask_host("::1", job) == Endpoint("::1", 4711)


def test_a_free_rung_is_found_behind_silent_listeners(job: Identity) -> None:
    with listeners(job.ports[:7]), Beacon(job, STORE, [HERE]) as own:
        assert own.port == job.ports[7]
        assert ask_host(HERE, job) == Endpoint(HERE, 4711)


def test_nothing_is_said_to_a_silent_listener(job: Identity) -> None:
    with listeners(job.ports[:1]) as (silent,):
        assert ask_host(HERE, job) is None
        assert heard(silent) == b""


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.6\r\n", GREETING, GREETING + bytes(32)])
def test_who_greets_and_is_no_beacon_of_ours_is_passed_over(job: Identity, greeting: bytes) -> None:
    with listeners(job.ports[:1], greeting), Beacon(job, STORE, [HERE]):
        assert ask_host(HERE, job) == Endpoint(HERE, 4711)


@pytest.mark.parametrize(("name", "attempt", "user"), [("other", 0, 1000), ("", 1, 1000), ("", 0, 1001)])
def test_a_beacon_of_another_job_attempt_or_user_is_passed_over(
    job: Identity, name: str, attempt: int, user: int
) -> None:
    stranger = Neighbour(name or job.job, attempt, user, job.secret, ladder=job.ports)
    with Beacon(stranger, Endpoint("", 1), [HERE]) as first, Beacon(job, STORE, [HERE]) as second:
        assert (first.port, second.port) == job.ports[:2]
        assert ask_host(HERE, job) == Endpoint(HERE, 4711)
        assert ask_host(HERE, stranger) == Endpoint(HERE, 1)


def test_a_rank_without_the_secret_learns_nothing(job: Identity) -> None:
    with Beacon(job, STORE, [HERE]) as own, socket.create_connection((HERE, own.port), timeout=5) as guest:
        assert guest.recv(100).startswith(GREETING)
        guest.sendall(bytes(48))
        assert guest.recv(100) == b"another secret\n"
        assert guest.recv(100) == b""


@pytest.mark.parametrize("half", [b"", b"a", bytes(47), bytes(48), bytes(1000)])
def test_half_a_proof_and_a_wrong_one_tell_nothing(job: Identity, half: bytes) -> None:
    with Beacon(job, STORE, [HERE]) as own, socket.create_connection((HERE, own.port), timeout=5) as guest:
        guest.sendall(half)
        heard = b""
        with suppress(ConnectionResetError):
            while said := guest.recv(1000):
                heard += said
        assert heard.removesuffix(b"another secret\n")[:-16] == job.greeting
        assert ask_host(HERE, job) == Endpoint(HERE, 4711)


def test_a_proof_is_good_for_one_conversation(job: Identity) -> None:
    with Beacon(job, STORE, [HERE]) as own, socket.create_connection((HERE, own.port), timeout=5) as first:
        theirs, ours = first.recv(100)[-16:], bytes(16)
        proof = ours + prove(job.key, b"rank", theirs, ours)
        first.sendall(proof)
        assert b"4711" in first.recv(1000)
        with socket.create_connection((HERE, own.port), timeout=5) as second:
            second.recv(100)
            second.sendall(proof)
            assert second.recv(100) == b"another secret\n"


def test_who_claims_to_be_this_jobs_beacon_with_another_secret_is_passed_over_and_named(job: Identity) -> None:
    doubtful: list[str] = []
    with Beacon(replace(job, secret=b"guessed"), Endpoint("", 1), [HERE]) as false:
        assert ask_host(HERE, job, doubtful.append) is None
        assert doubtful == [f"{HERE}:{false.port}"]
        with Beacon(job, STORE, [HERE]):
            assert find_beacon((HERE,), job, time.monotonic() + 30) == Endpoint(HERE, 4711)


def test_seven_who_greet_as_this_jobs_beacon_and_stall_hold_nobody_up(job: Identity) -> None:
    with listeners(job.ports[:7], job.greeting + bytes(16)), Beacon(job, STORE, [HERE]):
        assert ask_host(HERE, job) == Endpoint(HERE, 4711)


def test_more_guests_than_a_beacon_takes_show_each_other_out(job: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpc.connect.beacon.MOST_GUESTS", 3)
    monkeypatch.setattr("hpc.connect.beacon.ANSWER_SECONDS", 60)
    with Beacon(job, STORE, [HERE]) as own, ExitStack() as stack:
        guests = [stack.enter_context(socket.create_connection((HERE, own.port), timeout=5)) for _ in range(6)]
        assert ask_host(HERE, job) == Endpoint(HERE, 4711)
        assert all(guest.recv(100) and guest.recv(1) == b"" for guest in guests[:3])


def test_a_relayed_answer_names_the_beacons_own_address(job: Identity) -> None:
    """Whoever stands in between cannot put himself in the store's place."""
    with Beacon(job, STORE, ["127.0.0.5"]) as own, listeners(tuple({*job.ports} - {own.port})[:1]) as (between,):
        answers: list[Endpoint | None] = []
        search = threading.Thread(target=lambda: answers.append(ask_host(HERE, job)))
        search.start()
        guest, _ = between.accept()
        with guest, socket.create_connection(("127.0.0.5", own.port), timeout=5) as real:
            guest.sendall(real.recv(100))
            real.sendall(guest.recv(100))
            guest.sendall(real.recv(1000))
            search.join()
    assert answers == [Endpoint("127.0.0.5", 4711)]


def test_a_beacon_listens_at_its_own_addresses_only(job: Identity) -> None:
    with Beacon(job, STORE, ["127.0.0.5", "127.0.0.6"]):
        found = [ask_host(host, job) for host in ("127.0.0.5", "127.0.0.6", "127.0.0.7")]
    assert found == [Endpoint("127.0.0.5", 4711), Endpoint("127.0.0.6", 4711), None]


def test_guests_that_say_nothing_are_shown_out_and_hold_nobody_up(job: Identity) -> None:
    with Beacon(job, STORE, [HERE]) as own, ExitStack() as stack:
        guests = [stack.enter_context(socket.create_connection((HERE, own.port), timeout=5)) for _ in range(20)]
        assert ask_host(HERE, job) == Endpoint(HERE, 4711)
        assert all(guest.recv(100) and guest.recv(1) == b"" for guest in guests)


def test_a_beacon_leaves_no_thread_and_no_port_behind(job: Identity) -> None:
    with Beacon(job, STORE, [HERE]) as own:
        assert "hpc-beacon" in {thread.name for thread in threading.enumerate()}
    assert "hpc-beacon" not in {thread.name for thread in threading.enumerate()}
    listen(HERE, own.port).close()


def test_a_ladder_without_a_free_rung_is_an_error(job: Identity) -> None:
    with listeners(job.ports), pytest.raises(OSError, match="every port is taken"):
        Beacon(job, STORE, [HERE])


def test_a_foreign_address_to_listen_on_is_an_error(job: Identity) -> None:
    with pytest.raises(OSError, match="assign requested address"):
        Beacon(job, STORE, ["192.0.2.1"])


def test_a_beacon_behind_other_hosts_is_found(job: Identity) -> None:
    hosts = ("no-such-host.invalid", "127.0.0.2", "127.0.0.3")
    with Beacon(job, STORE, ["127.0.0.3"]):
        assert find_beacon(hosts, job, time.monotonic() + 30) == Endpoint("127.0.0.3", 4711)


def test_a_beacon_that_is_lit_late_is_found(job: Identity) -> None:
    found: list[Endpoint | None] = []
    search = threading.Thread(target=lambda: found.append(find_beacon((HERE,), job, time.monotonic() + 30)))
    search.start()
    time.sleep(0.3)
    with Beacon(job, STORE, [HERE]):
        search.join()
    assert found == [Endpoint(HERE, 4711)]


def test_a_search_ends_at_its_deadline(job: Identity) -> None:
    assert find_beacon((HERE,), job, time.monotonic() + 0.2) is None


def test_every_round_asks_near_hosts_and_rare_rounds_ask_all_of_a_large_machine() -> None:
    widths = [width for width, _ in itertools.islice(search_rounds(world_size=1), 128)]
    assert min(widths) == 16
    assert [(number, width) for number, width in enumerate(widths, 1) if width > 16] == [
        (8, 64),
        (16, 256),
        (32, 1024),
        (64, 4096),
        (128, 16384),
    ]


@pytest.mark.parametrize(("world_size", "shortest", "longest"), [(2, 0.005, 1.5), (100_000, 2.5, 7.5)])
def test_more_ranks_ask_less_often(world_size: int, shortest: float, longest: float) -> None:
    pauses = [pause for _, pause in itertools.islice(search_rounds(world_size), 100)]
    assert min(pauses) >= shortest
    assert max(pauses) <= longest
