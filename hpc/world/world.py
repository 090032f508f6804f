"""Which rank am I, who says so, and why was nobody else believed?

Pure: a mapping in, a frozen value out; nothing is asked of the machine, the network or the scheduler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpc.errors import WorldError
from hpc.world.launchers import LAUNCHERS, Launcher, enumerate_words
from hpc.world.value import World

__all__ = ["Candidate", "Explanation", "World", "explain_world", "resolve_world"]

SWITCH = "HPC_LAUNCHER"
"""Environment variable that names the launcher to believe; `none` turns detection off."""

CHOSEN, REJECTED = "chosen", "rejected"


@dataclass(frozen=True)
class Candidate:
    """One launcher of the table, and what became of it.

    Args:
        name: Its name in the table.
        status: "chosen" or "rejected".
        reason: Why.
    """

    name: str
    status: str
    reason: str


@dataclass(frozen=True)
class Explanation:
    """How a world was resolved.

    Args:
        world: The answer.
        candidates: Every launcher of the table, in its order; one of them is chosen.
        warnings: What the user should know although nothing is wrong, a sentence each.
    """

    world: World
    candidates: tuple[Candidate, ...]
    warnings: tuple[str, ...]


def resolve_world(environ: Mapping[str, str]) -> World:
    """Which rank the process with these environment variables is.

    Raises:
        WorldError: The variables are half set, contradict each other, or cannot be.
    """
    return explain_world(environ).world


def explain_world(environ: Mapping[str, str]) -> Explanation:
    """Resolve the world, and say why each launcher was or was not believed.

    Raises:
        WorldError: The variables are half set, contradict each other, or cannot be.
    """
    forced = environ.get(SWITCH, "")
    chosen = _forced(forced, environ) if forced else next(row for row in LAUNCHERS if not row.refusal(environ))
    world = _read(chosen, environ)
    candidates = tuple(_judge(row, chosen, world, forced, environ) for row in LAUNCHERS)
    advice = "" if forced else chosen.advice(environ)
    return Explanation(world, candidates, (advice,) if advice else ())


def _forced(name: str, environ: Mapping[str, str]) -> Launcher:
    rows = {row.name: row for row in LAUNCHERS}
    if name not in rows:
        raise WorldError(
            f"{SWITCH} must be {enumerate_words(tuple(rows), 'or')}, but is {name!r}: correct or unset it."
        )
    reason = rows[name].refusal(environ)
    if reason:
        raise WorldError(
            f"{SWITCH}={name} asks for {rows[name].title}, but {reason}: start it that way, or unset {SWITCH}."
        )
    return rows[name]


def _read(row: Launcher, environ: Mapping[str, str]) -> World:
    missing = row.missing(environ)
    if missing:
        signs = tuple(sign for sign in row.signs if environ.get(sign))
        present = enumerate_words(signs, "and")
        others = ", ".join(other.name for other in LAUNCHERS if other is not row)
        raise WorldError(
            f"{enumerate_words(missing, 'and')} must be set where {present} {_are(signs)}, to make {row.title}, but"
            f" {_are(missing)} not: set what is missing, unset {present}, or set {SWITCH} to"
            f" whom to believe instead ({others})."
        )
    return row.read(environ)


def _judge(row: Launcher, chosen: Launcher, world: World, forced: str, environ: Mapping[str, str]) -> Candidate:
    """What became of one row, now that this or another one is chosen."""
    if row is chosen:
        return Candidate(row.name, CHOSEN, f"{SWITCH}={forced}" if forced else _claim(row, environ))
    if forced:
        return Candidate(row.name, REJECTED, f"{SWITCH}={forced}")
    missing = row.missing(environ)
    reason = row.refusal(environ) or (missing and f"{enumerate_words(missing, 'and')} {_are(missing)} not set")
    return Candidate(row.name, REJECTED, reason or _outranked(row, environ, chosen, world))


def _are(names: tuple[str, ...]) -> str:
    return "is" if len(names) == 1 else "are"


def _claim(row: Launcher, environ: Mapping[str, str]) -> str:
    claims = [f"{sign}={environ[sign]}" for sign in row.signs if environ.get(sign)]
    return ", ".join(claims) or "nobody else started this process"


def _outranked(row: Launcher, environ: Mapping[str, str], chosen: Launcher, world: World) -> str:
    """Why a complete claim lost; a world of one contradicts nobody, because it is the shell around the others."""
    try:
        other = row.read(environ)
    except WorldError as error:
        return str(error)
    agree = (other.rank, other.world_size) == (world.rank, world.world_size)
    if not agree and other.world_size > 1 and not chosen.starts_inside:
        raise WorldError(
            f"All launchers must agree on one rank, but by {chosen.title} it is {world.rank} of {world.world_size},"
            f" and by {row.title} {other.rank} of {other.world_size}: unset what an outer job left behind, or say whom"
            f" to believe with {SWITCH}={chosen.name} or {SWITCH}={row.name}."
        )
    return f"rank {other.rank} of {other.world_size}, but {chosen.name} comes first"
