"""What kind of cluster is this? Its configuration, partitions and nodes, each asked for once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hpc.slurm import client

Record = Mapping[str, str]
NOTHING = ("", "(null)", "N/A", "NONE", "none")


@dataclass(frozen=True)
class Survey:
    """What a controller said of itself.

    Args:
        config: The lines of `scontrol show config`, by name.
        partitions: The records of `scontrol show partition`; hidden ones, too.
        nodes: The records of `scontrol show node`.
    """

    config: Record
    partitions: tuple[Record, ...]
    nodes: tuple[Record, ...]

    def text(self, name: str) -> str:
        """A value of the configuration; "" where it is not set."""
        value = self.config.get(name, "")
        return "" if value in NOTHING else value

    def number(self, name: str, otherwise: int) -> int:
        """The number that a value of the configuration begins with: `30 sec`."""
        found = re.match(r"\d+", self.text(name))
        return int(found[0]) if found else otherwise

    def word(self, name: str, key: str) -> str | None:
        """What one word of a list says, as `cred_expire=120` in AuthInfo: "" where it has no value; None without it."""
        words = (each.partition("=") for each in re.split(r"[,;]", self.text(name)))
        return next((value.strip() for word, _, value in words if word.strip() == key), None)

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor release, as (22, 5); (0, 0) where it is not told."""
        found = re.match(r"(\d+)\.(\d+)", self.text("SLURM_VERSION"))
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def nodes_of(self, partition: Record) -> list[Record]:
        """The nodes of a partition."""
        name = partition.get("PartitionName", "")
        return [node for node in self.nodes if name in node.get("Partitions", "").split(",")]


def survey() -> Survey:
    """Ask the controller; three calls.

    Raises:
        SlurmError: It does not answer.
    """
    config = client.ask(["scontrol", "show", "config"])
    partitions = client.ask(["scontrol", "--all", "show", "partition", "--oneliner"])
    nodes = client.ask(["scontrol", "--all", "show", "node", "--oneliner"])
    return parsed(config, partitions, nodes)


def parsed(config: str, partitions: str, nodes: str) -> Survey:
    """The same from texts that scontrol printed."""
    lines = re.findall(r"^(\w[\w\[\]]*)\s*=[ \t]*(.*?)[ \t]*$", config, re.MULTILINE)
    return Survey(dict(lines), _records(partitions.splitlines()), _records(nodes.splitlines()))


def _records(lines: Iterable[str]) -> tuple[Record, ...]:
    found = (client.parse_record(line) for line in lines)
    return tuple(record for record in found if "PartitionName" in record or "NodeName" in record)
