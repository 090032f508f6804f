"""How many jobs does Slurm still take from this user?

Sources: slurm.conf(5), MaxArraySize and MaxJobCount, for which every task of an array is a job; sacctmgr(1),
MaxSubmitJobs of associations and of QOS. What a controller does not say is no limit here: sbatch knows.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from hpc.errors import SlurmError
from hpc.slurm import client


@dataclass(frozen=True)
class Room:
    """What can be submitted now.

    Args:
        max_array_size: Most tasks in one array.
        jobs: How many more jobs; None where no limit is known.
        limit: The name and value of the limit that leaves so few.
    """

    max_array_size: int = client.DEFAULT_MAX_ARRAY_SIZE
    jobs: int | None = None
    limit: str = ""


def own_name() -> str:
    """What Slurm calls this user: a name, or its number where nothing knows a name, as in some containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def room(user: str, qos: str | None = None, clusters: str | None = None, most: int | None = None) -> Room:
    """Ask for the limits, and for what is in the queue already.

    Args:
        user: Whose jobs they are.
        qos: As asked for; None where the site chooses.
        clusters: Other clusters than this one, as --clusters names them.
        most: How many jobs of one user the preset of the site allows; None where it does not say.
    """
    there = client.at(clusters)
    config = _answer(["scontrol", *there, "show", "config"])
    size = _number(config, "MaxArraySize") or client.DEFAULT_MAX_ARRAY_SIZE
    count = _number(config, "MaxJobCount")
    lefts = [] if not count else [(count - _queued(there, []), f"MaxJobCount={count}")]
    own = [] if most is None else [(most, f"cluster.limits: submitted_jobs={most}")]
    if re.search(r"^AccountingStorageType\s*=\s*accounting_storage/slurmdbd", config, re.MULTILINE):
        own += [(limit, f"MaxSubmitJobs={limit}") for limit in _submit_limits(user, qos)]
    if own:
        limit, name = min(own)
        lefts.append((limit - _queued(there, [f"--user={user}"]), name))
    jobs, name = min(lefts, default=(None, ""))
    return Room(size, None if jobs is None else max(0, jobs), name)


def _submit_limits(user: str, qos: str | None) -> Iterable[int]:
    """Of the user's associations the most generous one, because sbatch chooses among them; and of the QOS."""
    if shutil.which("sacctmgr") is None:
        return
    ask = ["sacctmgr", "--noheader", "--parsable2", "show"]
    found = _answer([*ask, "associations", f"user={user}", "format=MaxSubmitJobs"]).splitlines()
    if found and all(line.strip().isdigit() for line in found):
        yield max(int(line) for line in found)
    named = _answer([*ask, "qos", qos, "format=MaxSubmitJobsPerUser"]).strip() if qos else ""
    if named.isdigit():
        yield int(named)


def _queued(there: list[str], whose: list[str]) -> int:
    return len(_answer(["squeue", *there, *whose, "--array", "--noheader", "--format=%i"]).splitlines())


def _number(config: str, name: str) -> int | None:
    found = re.search(rf"^{name}\s*=\s*(\d+)", config, re.MULTILINE)
    return int(found[1]) if found else None


def _answer(command: list[str]) -> str:
    try:
        return client.ask(command)
    except SlurmError:
        return ""
