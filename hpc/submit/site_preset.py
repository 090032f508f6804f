"""What would the preset of this cluster say? Read from what its controller tells of itself."""

from __future__ import annotations

import math
from typing import Any

import yaml

from hpc.config import settings_of
from hpc.errors import ConfigurationError, SlurmError
from hpc.slurm import client
from hpc.slurm.client import minutes
from hpc.slurm.gres import resources
from hpc.slurm.survey import Record, Survey

TYPED, UNTYPED = "gpu:{gpu_type}:{gpus_per_node}", "gpu:{gpus_per_node}"


def needs_account(found: Survey) -> bool:
    """Whether sbatch refuses a job whose account is not known."""
    return bool(found.text("AccountingStorageEnforce"))


def accounts_of(user: str) -> list[str]:
    """The accounts that a user may charge, as accounting knows them; none where it is not asked or does not answer."""
    try:
        told = client.ask(
            ["sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}", "format=Account"]
        )
    except SlurmError:
        return []
    return sorted({line.strip() for line in told.splitlines() if line.strip()})


def site_preset(found: Survey, partition: str | None, account: str | None, today: str) -> dict[str, Any]:
    """The settings of `cluster`, checked as they will be when they are used.

    Args:
        found: What the controller says.
        partition: Where jobs go; None takes the one that is the default there.
        account: What they are charged to.
        today: The date, as 2026-11-29.

    Raises:
        ConfigurationError: There is no such partition, or no default one.
    """
    chosen = _partition(found, partition)
    name = found.text("ClusterName") or "this cluster"
    preset: dict[str, Any] = {
        "scheduler": "slurm",
        "site": name,
        "source": f"scontrol show config, partition and node, on {name}",
        "checked_on": today,
        "partition": chosen["PartitionName"],
        **({"account": account} if account else {}),
        "gres": _gres(found, chosen),
    }
    if needs_account(found):
        preset["required"] = {"account": {"why": "accounts are enforced here"}}
    preset["limits"] = [row for each in found.partitions if len(row := _limit(each)) > 1]
    settings_of({"cluster": preset})
    return preset


def as_yaml(preset: dict[str, Any]) -> str:
    """The text of its file."""
    text: str = yaml.safe_dump(preset, sort_keys=False, allow_unicode=True, width=120)
    return (
        f"# Written by `hpc init site`: add what it cannot know, as modules (setup) and networks (environment).\n{text}"
    )


def _partition(found: Survey, asked: str | None) -> Record:
    names = [each["PartitionName"] for each in found.partitions]
    fitting = [
        each for each in found.partitions
        if (each["PartitionName"] == asked if asked else each.get("Default") == "YES")
    ]  # fmt: skip
    if not fitting and asked:
        raise ConfigurationError(f"--partition must be one of {', '.join(names)}, but is {asked}.")
    if not fitting:
        raise ConfigurationError(f"--partition must be given, because none is the default: {', '.join(names)}.")
    return fitting[0]


def _gres(found: Survey, partition: Record) -> str | None:
    """How GPUs are spelled; null where the partition has none, or Slurm does not know them."""
    texts = {node.get("Gres", "").replace("(null)", "") for node in found.nodes_of(partition)}
    gpus = [each for text in texts for each in resources(text) if each.name == "gpu"]
    if not gpus:
        return None
    return TYPED if all(each.kind for each in gpus) else UNTYPED


def _limit(partition: Record) -> dict[str, Any]:
    row: dict[str, Any] = {"partition": partition["PartitionName"]}
    if partition.get("MaxNodes", "UNLIMITED").isdigit():
        row["nodes"] = max(1, int(partition["MaxNodes"]))
    longest = minutes(partition.get("MaxTime", "UNLIMITED"))
    if longest != math.inf:
        row["time_limit_minutes"] = max(1, int(longest))
    return row
