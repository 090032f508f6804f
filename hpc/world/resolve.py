"""Which rank is this process, which launcher says so, and why was no other launcher believed?

Pure functions: a mapping goes in, a frozen value comes out. The machine, the network and the scheduler are not asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpc.errors import WorldError
from hpc.world.launcher import Launcher, enumerate_words
from hpc.world.launchers import LAUNCHERS
from hpc.world.world import World

SWITCH = "HPC_LAUNCHER"
"""Environment variable that names the launcher to believe: `none` turns detection off, `auto` leaves it on."""
SETTING = "runtime.launcher"
"""The same switch in the configuration; it wins over the environment variable."""
AUTO = "auto"

CHOSEN, REJECTED, ABSENT = "chosen", "rejected", "absent"

CONTEXT = (
    *(SWITCH, "SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_TASKS_PER_NODE", "SLURM_JOB_NODELIST", "SLURM_GPUS_ON_NODE"),
    *("PMI_SIZE", "SUBMITIT_LOCAL_NODEID", "HOSTNAME", "SLURMD_NODENAME"),
)
"""Further variables that help to explain why two processes get different answers."""


@dataclass(frozen=True)
class Candidate:
    """One launcher of the table, and whether it was chosen.

    Args:
        name: Its name in the table.
        status: "chosen", "rejected", or "absent" where none of its variables is set.
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
        variables: Those of the launchers' variables that are set, with their values.
    """

    world: World
    candidates: tuple[Candidate, ...]
    warnings: tuple[str, ...]
    variables: Mapping[str, str]


def resolve_world(environ: Mapping[str, str], launcher: str = AUTO) -> World:
    """Which rank the process with these environment variables is.

    Args:
        environ: The process's environment variables.
        launcher: Whom to believe: `auto`, `none`, or a name in the table. Anything but `auto` beats HPC_LAUNCHER.

    Raises:
        WorldError: The variables are half set, contradict each other, or cannot be.
    """
    return explain_world(environ, launcher).world


def explain_world(environ: Mapping[str, str], launcher: str = AUTO) -> Explanation:
    """Resolve the world, and say why each launcher was or was not believed.

    Args:
        environ: The process's environment variables.
        launcher: Whom to believe: `auto`, `none`, or a name in the table. Anything but `auto` beats HPC_LAUNCHER.

    Raises:
        WorldError: The variables are half set, contradict each other, or cannot be.
    """
    switch = _switch(environ, launcher)
    chosen = _forced(switch, environ) if switch else next(row for row in LAUNCHERS if not row.refusal(environ))
    world = _read(chosen, environ)
    candidates = tuple(_judge(row, chosen, world, switch, environ) for row in LAUNCHERS)
    advice = "" if switch else chosen.advice(environ, world)
    return Explanation(world, candidates, (advice,) if advice else (), _known_variables(environ))


def _switch(environ: Mapping[str, str], launcher: str) -> tuple[str, str] | None:
    """The switch that is set, and the launcher it names; None leaves the choice to the table."""
    for setting, name in ((SETTING, launcher), (SWITCH, environ.get(SWITCH, ""))):
        if name not in ("", AUTO):
            return setting, name
    return None


def _forced(switch: tuple[str, str], environ: Mapping[str, str]) -> Launcher:
    setting, name = switch
    rows = {row.name: row for row in LAUNCHERS}
    if name not in rows:
        names = enumerate_words((AUTO, *rows), "or")
        raise WorldError(f"{setting} must be {names}, but is {name!r}: correct or unset it.")
    if rows[name].is_absent(environ):
        unset = rows[name].refusal(environ)
        raise WorldError(
            f"{setting}={name} asks for {rows[name].title}, but {unset}: start it that way, or unset {setting}."
        )
    return rows[name]


def _read(row: Launcher, environ: Mapping[str, str]) -> World:
    missing = row.missing(environ)
    if missing:
        signs = tuple(sign for sign in row.signs if environ.get(sign))
        present = enumerate_words(signs, "and")
        others = [other for other in LAUNCHERS if other is not row and not other.refusal(environ)]
        names = ", ".join(other.name for other in others if not other.missing(environ))
        raise WorldError(
            f"{enumerate_words(missing, 'and')} must be set where {present} {_are(signs)}, to make {row.title}, but"
            f" {_are(missing)} not: set what is missing, unset {present}, or set {SWITCH} to"
            f" whom to believe instead ({names})."
        )
    return row.read(environ)


def _judge(
    row: Launcher, chosen: Launcher, world: World, switch: tuple[str, str] | None, environ: Mapping[str, str]
) -> Candidate:
    """Whether one row was chosen, rejected or absent, and why."""
    if row is chosen:
        return Candidate(row.name, CHOSEN, "=".join(switch) if switch else _claim(row, environ))
    if row.is_absent(environ):
        return Candidate(row.name, ABSENT, row.refusal(environ))
    if switch:
        return Candidate(row.name, REJECTED, "=".join(switch))
    missing = row.missing(environ)
    reason = row.refusal(environ) or (missing and f"{enumerate_words(missing, 'and')} {_are(missing)} not set")
    return Candidate(row.name, REJECTED, reason or _outranked(row, environ, chosen, world))


def _are(names: tuple[str, ...]) -> str:
    return "is" if len(names) == 1 else "are"


def _claim(row: Launcher, environ: Mapping[str, str]) -> str:
    claims = [f"{sign}={environ[sign]}" for sign in row.signs if environ.get(sign)]
    return ", ".join(claims) or "nobody else started this process"


def _outranked(row: Launcher, environ: Mapping[str, str], chosen: Launcher, world: World) -> str:
    """Why a launcher with complete variables was not chosen.

    A launcher that claims a single rank never conflicts: it ran the shell that started the chosen launcher.

    Raises:
        WorldError: The two describe different worlds, and neither runs inside the other.
    """
    try:
        other = row.read(environ)
    except WorldError as error:
        return str(error)
    agree = (other.rank, other.world_size) == (world.rank, world.world_size)
    if not agree and other.world_size > 1 and chosen.depth <= row.depth:
        raise WorldError(
            f"All launchers must agree on one rank, but by {chosen.title} it is {world.rank} of {world.world_size},"
            f" and by {row.title} {other.rank} of {other.world_size}: unset what an outer job left behind, or say whom"
            f" to believe with {SWITCH}={chosen.name} or {SWITCH}={row.name}."
        )
    return f"rank {other.rank} of {other.world_size}, but {chosen.name} comes first"


def _known_variables(environ: Mapping[str, str]) -> dict[str, str]:
    names = {name for row in LAUNCHERS for name in (*row.signs, *row.needs)}
    return {name: environ[name] for name in sorted(names.union(CONTEXT)) if environ.get(name)}
