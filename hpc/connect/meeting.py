"""Are all ranks there, each once, and do all of them have the same secret? They meet in the store before they train.

Every rank says hello with a fresh number. When all have, rank 0 answers each: that all are there, or what is wrong.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable

from hpc.connect.sealed import SealedStore, prove
from hpc.errors import WorldError
from hpc.world.world import World

POLLS_PER_SECOND = 20_000
"""The most that all ranks of a world together may ask the store while they wait for the last one."""

FAREWELL_SECONDS = 1.5
"""After a failure rank 0 stays for this long, because the other ranks read the reason from its store."""

TWICE = "twice"
TWICE_HINT = "unset RANK where a batch script exports it for all tasks"


def meet(lobby: SealedStore, world: World, deadline: float) -> SealedStore:
    """Wait until all ranks have proved that they have the secret. Collective.

    What rank 0 makes up for this meeting goes into the key of everything that follows, so that nothing which was said
    in an earlier run is believed in this one.

    Args:
        lobby: Sealed with a key made of the secret.
        world: This rank.
        deadline: When to give up, in `time.monotonic()` seconds.

    Returns:
        The same store, with the key of this meeting.

    Raises:
        WorldError: A rank is missing, came twice, or has another secret.
    """
    number = secrets.token_hex()
    if lobby.propose(_hello(world.rank), number) != number:
        twice = f"Every rank must be started once, but rank {world.rank} of {world.job} came twice: {TWICE_HINT}."
        lobby.propose(TWICE, twice)
        raise WorldError(twice)
    answer = _answer_all(lobby, world, deadline) if world.rank == 0 else _hear_answer(lobby, world, number, deadline)
    if "refusal" in answer:
        if world.rank == 0:
            time.sleep(FAREWELL_SECONDS)
        raise WorldError(answer["refusal"])
    return SealedStore(lobby.plain, prove(lobby.key, b"meeting", answer["meeting"].encode()))


def shortened(names: Iterable[str]) -> str:
    """The first eight of them, and how many more there are."""
    shown = [*names]
    listed = ", ".join(shown[:8])
    return listed if len(shown) <= 8 else f"{listed} and {len(shown) - 8:,} more"


def _hello(rank: int) -> str:
    return f"hello/{rank}"


def _answer(number: str) -> str:
    """The number is part of the name, and so of the proof: an answer to somebody else, or of yesterday, has another."""
    return f"answer/{number}"


def _answer_all(lobby: SealedStore, world: World, deadline: float) -> dict[str, str]:
    start, everybody = time.monotonic(), [*range(world.world_size)]
    hellos = [_hello(rank) for rank in everybody]
    _await(world, deadline, lambda: lobby.has(*hellos) or lobby.has(TWICE))
    came = everybody if lobby.has(*hellos) else [rank for rank in everybody if lobby.has(_hello(rank))]
    numbers = {rank: number for rank in came if (number := _proved(lobby, _hello(rank)))}
    strangers = [str(rank) for rank in came if rank not in numbers]
    if strangers:
        answer = {"refusal": f"Rank {shortened(strangers)} must have rank 0's secret, but has another: {lobby.advice}."}
    elif lobby.has(TWICE) and (twice := _proved(lobby, TWICE)):
        answer = {"refusal": twice}
    elif came != everybody:
        answer = {"refusal": _missing(lobby, world, time.monotonic() - start)}
    else:
        answer = {"meeting": secrets.token_hex()}
    lobby.set_all({_answer(number): answer for number in numbers.values()})
    return answer


def _proved(lobby: SealedStore, name: str) -> str:
    """What is there, or "" where a stranger has written it."""
    try:
        return str(lobby.get(name))
    except WorldError:
        return ""


def _hear_answer(lobby: SealedStore, world: World, number: str, deadline: float) -> dict[str, str]:
    start, told = time.monotonic(), _answer(number)
    if _await(world, deadline, lambda: lobby.has(_hello(0))):
        lobby.get(_hello(0))  # where rank 0 has another secret, this rank need not wait for the others
    if _await(world, deadline, lambda: lobby.has(told)):
        return dict(lobby.get(told))
    return {"refusal": _missing(lobby, world, time.monotonic() - start)}


def _await(world: World, deadline: float, is_there: Callable[[], bool]) -> bool:
    """Ask again and again instead of waiting inside torch, because a signal is not handled in there."""
    start = time.monotonic()
    while not is_there():
        now = time.monotonic()
        if now > deadline:
            return False
        time.sleep(max(world.world_size / POLLS_PER_SECOND, min(0.5, (now - start) / 10)))
    return True


def _missing(lobby: SealedStore, world: World, waited_seconds: float) -> str:
    """What to say when the time is up."""
    missing = [str(rank) for rank in range(world.world_size) if not lobby.has(_hello(rank))] or ["0"]
    return (
        f"All {world.world_size} ranks must come within runtime.rendezvous_timeout_seconds, but {len(missing)} did not"
        f" in {waited_seconds:.0f} s: see the output of rank {shortened(missing)}."
    )
