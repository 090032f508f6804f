"""Where do the ranks really run, and how many CPUs are there for this one?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpc.errors import WorldError
from hpc.world.world import World

SHOWN_CLASHES = 4


@dataclass(frozen=True)
class Place:
    """Where a rank really runs, as its own process sees it.

    Args:
        host: The name that its kernel gives.
        cpus: The CPUs it may use, in order.
        device: UUID of its GPU; "" without a GPU, or where torch does not tell it.
    """

    host: str
    cpus: tuple[int, ...]
    device: str = ""


def check_devices(places: Sequence[Place]) -> None:
    """Refuse a world in which two ranks of one host compute on one GPU.

    Args:
        places: Of every rank, by rank.

    Raises:
        WorldError: Ranks share a GPU; it names hosts, ranks and UUIDs.
    """
    ranks: dict[tuple[str, str], list[str]] = defaultdict(list)
    for rank, place in enumerate(places):
        if place.device:
            ranks[place.host, place.device].append(str(rank))
    clashes = [f"{host}: ranks {', '.join(of)} on {uuid}" for (host, uuid), of in ranks.items() if len(of) > 1]
    if clashes:
        more = f"; and {len(clashes) - SHOWN_CLASHES:,} more" if len(clashes) > SHOWN_CLASHES else ""
        raise WorldError(
            f"Every rank must have a GPU of its own, but {len(clashes)} GPU(s) are shared ("
            f"{'; '.join(clashes[:SHOWN_CLASHES])}{more}): ask for as many GPUs as ranks on each node, and leave"
            " CUDA_VISIBLE_DEVICES to the launcher."
        )


def thread_count(place: Place, places: Sequence[Place], world: World, environ: Mapping[str, str]) -> int | None:
    """How many threads this rank computes with; None where the user has set OMP_NUM_THREADS, which then counts.

    The CPUs that this rank may use are divided by the number of ranks on its host that may use exactly the same CPUs.
    With Slurm's task/affinity or task/cgroup each rank has CPUs of its own; elsewhere all ranks of a node see all CPUs.
    Ranks whose CPUs overlap but differ do not count. A rank that srun started takes at most what its job asked for,
    because without these plugins the other CPUs of the node may belong to other jobs.

    torchrun sets OMP_NUM_THREADS=1 where the user has not (torch 2.6 to 2.15, distributed/run.py), so that 1 under
    torchrun is not taken for the user's choice.

    Args:
        place: This rank's.
        places: Of every rank.
        world: This rank.
        environ: Where OMP_NUM_THREADS and SLURM_CPUS_PER_TASK may be.
    """
    told = environ.get("OMP_NUM_THREADS", "")
    if told and (world.source, told) != ("torchrun", "1"):
        return None
    shares = Counter((each.host, each.cpus) for each in places)[place.host, place.cpus]
    share = max(1, len(place.cpus) // max(1, shares))
    return min(share, _asked_cpus(world, environ) or share)


def cpu_advice(place: Place, world: World, environ: Mapping[str, str]) -> str:
    """Advice where a rank has fewer CPUs than asked for, or "": since Slurm 22.05 srun ignores the job's `-c`."""
    asked = _asked_cpus(world, environ)
    if asked <= len(place.cpus):
        return ""
    return (
        f"SLURM_CPUS_PER_TASK is {asked}, but rank {world.rank} may use {len(place.cpus)} CPU(s) of {place.host}: start"
        f" it with `srun --cpus-per-task={asked}`, or export SRUN_CPUS_PER_TASK={asked} (since Slurm 22.05 srun does"
        " not take -c from the job)."
    )


def _asked_cpus(world: World, environ: Mapping[str, str]) -> int:
    """CPUs per task that the job asked Slurm for; 0 where it did not ask, or where Slurm did not start this rank."""
    told = environ.get("SLURM_CPUS_PER_TASK", "").strip()
    return int(told) if world.source == "slurm" and told.isdecimal() else 0
