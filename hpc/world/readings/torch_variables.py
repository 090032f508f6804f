"""What do torchrun's variables say, and torch's own env:// ones?"""

from __future__ import annotations

from hpc.errors import WorldError
from hpc.world.readings import numbers
from hpc.world.readings.numbers import Environ
from hpc.world.readings.slurm import is_step, read_slurm
from hpc.world.world import World

LOCAL_SIZES = (
    ("OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_SIZE"),
    ("MPI_LOCALNRANKS", "PMI_SIZE"),
    ("PMI_LOCAL_SIZE", "PMI_SIZE"),
)
"""Variables of other launchers that count the ranks of this node, and the size of their world.

A count is believed only where that size is WORLD_SIZE.
"""


def read_torchrun(environ: Environ) -> World:
    """The world of torchrun. With `--virtual-local-rank` every rank sees LOCAL_RANK=0, so it is computed."""
    size = numbers.count(environ, "WORLD_SIZE", 1)
    local_size = numbers.part(environ, "LOCAL_WORLD_SIZE", size, "WORLD_SIZE")
    nodes = numbers.part(environ, "GROUP_WORLD_SIZE", size, "WORLD_SIZE")
    rank = numbers.index(environ, "RANK", size, "WORLD_SIZE")
    local_rank = numbers.index(environ, "LOCAL_RANK", local_size, "LOCAL_WORLD_SIZE")
    return World(
        rank=rank,
        world_size=size,
        local_rank=local_rank or (rank % local_size if nodes * local_size == size else 0),
        local_world_size=local_size,
        node_rank=numbers.index(environ, "GROUP_RANK", nodes, "GROUP_WORLD_SIZE"),
        node_count=nodes,
        hosts=(environ["MASTER_ADDR"],),
        source="torchrun",
        job=f"torchrun.{environ['TORCHELASTIC_RUN_ID']}",
        attempt=numbers.count(environ, "TORCHELASTIC_RESTART_COUNT"),
        master=numbers.master(environ),
        agent_store=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def read_env(environ: Environ) -> World:
    """The world of torch's env:// variables; LOCAL_RANK, LOCAL_WORLD_SIZE and NODE_RANK are used where they are set."""
    size = numbers.count(environ, "WORLD_SIZE", 1)
    rank = numbers.index(environ, "RANK", size, "WORLD_SIZE")
    place = _place_in_step(environ, rank, size)
    local_size = _local_size(environ, size, place)
    nodes = place.node_count if place else -(-size // local_size)
    local = {"LOCAL_RANK": str(rank % local_size), "NODE_RANK": str(rank // local_size)}
    local |= {"LOCAL_RANK": str(place.local_rank), "NODE_RANK": str(place.node_rank)} if place else {}
    local |= {name: environ[name] for name in local if environ.get(name)}
    return World(
        rank=rank,
        world_size=size,
        local_rank=numbers.index(local, "LOCAL_RANK", local_size, "LOCAL_WORLD_SIZE"),
        local_world_size=local_size,
        node_rank=numbers.index(local, "NODE_RANK", nodes, "the number of nodes"),
        node_count=nodes,
        hosts=(environ["MASTER_ADDR"],),
        source="env",
        job=f"env.{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}",
        master=numbers.master(environ),
    )


def env_advice(environ: Environ, world: World) -> str:
    """Advice where the local rank is only a guess."""
    told = environ.get("LOCAL_RANK") or _told_local_size(environ)
    known = told or world.world_size == 1 or numbers.is_loopback(environ["MASTER_ADDR"])
    if known or _place_in_step(environ, world.rank, world.world_size):
        return ""
    return (
        "LOCAL_RANK and LOCAL_WORLD_SIZE are not set, so this rank is taken for the only one on its node: set both"
        " where a node runs several."
    )


def _place_in_step(environ: Environ, rank: int, size: int) -> World | None:
    """The World of the Slurm step around, where it has the same rank and size; None otherwise.

    Container hooks export RANK and WORLD_SIZE and nothing about the node, but the step knows it.
    """
    if environ.get("LOCAL_WORLD_SIZE") or not is_step(environ):
        return None
    try:
        step = read_slurm(environ)
    except (WorldError, KeyError):  # incomplete step variables are no reason to refuse torch's own
        return None
    if (step.rank, step.world_size) != (rank, size):
        return None
    if step.node_count > 1 and numbers.is_loopback(environ["MASTER_ADDR"]):
        raise WorldError(
            f"MASTER_ADDR must be an address that all {step.node_count} nodes of the step can reach, but is"
            f" {environ['MASTER_ADDR']}: set it to rank 0's host, or unset RANK, WORLD_SIZE and MASTER_ADDR."
        )
    return step


def _told_local_size(environ: Environ) -> str:
    """The variable that counts the ranks of this node, or ""."""
    if environ.get("LOCAL_WORLD_SIZE"):
        return "LOCAL_WORLD_SIZE"
    agreeing = (local for local, size in LOCAL_SIZES if environ.get(size) == environ.get("WORLD_SIZE"))
    return next((name for name in agreeing if environ.get(name)), "")


def _local_size(environ: Environ, size: int, place: World | None) -> int:
    """Ranks on this node: as a variable says, else all of them where MASTER_ADDR is loopback, else 1."""
    told = _told_local_size(environ)
    if place or told:
        return place.local_world_size if place else numbers.part(environ, told, size, "WORLD_SIZE")
    if numbers.is_loopback(environ["MASTER_ADDR"]):
        return size
    if environ.get("LOCAL_RANK"):
        raise WorldError(
            "LOCAL_WORLD_SIZE must be set where LOCAL_RANK is, but is not: set it to the number of ranks on this node."
        )
    return 1
