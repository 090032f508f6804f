"""Node lists and what they mean: a table, and `scontrol show hostnames` as the second opinion where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

TABLE: dict[str, tuple[str, ...]] = {
    "a[001-003,7]": ("a001", "a002", "a003", "a7"),
    "b-[1-2]-ib[0-1]": ("b-1-ib0", "b-1-ib1", "b-2-ib0", "b-2-ib1"),
    "rack[2]-node[5-7]": ("rack2-node5", "rack2-node6", "rack2-node7"),
    "tux[0-1][2-3]": ("tux02", "tux03", "tux12", "tux13"),
    "r1i[0-1]n[00-01]": ("r1i0n00", "r1i0n01", "r1i1n00", "r1i1n01"),
    "c[1-2]n[1-3],login1": ("c1n1", "c1n2", "c1n3", "c2n1", "c2n2", "c2n3", "login1"),
    "a[0-1]b[0,5]c[1-2]": ("a0b0c1", "a0b0c2", "a1b0c1", "a1b0c2", "a0b5c1", "a0b5c2", "a1b5c1", "a1b5c2"),
    "nid[000012-000014,000020]": ("nid000012", "nid000013", "nid000014", "nid000020"),
    "n[9-11]": ("n9", "n10", "n11"),
    "n[098-101]": ("n098", "n099", "n100", "n101"),
    "n[1-02]": ("n1", "n2"),
    "n[3,1,3]": ("n3", "n1", "n3"),
    "[1-2]": ("1", "2"),
    "node7": ("node7",),
    "a, b": ("a", "b"),
    "a,,b": ("a", "b"),
    "gpu1.cluster.local,gpu2": ("gpu1.cluster.local", "gpu2"),
}
"""Accepted by scontrol, too."""


@cache
def reason_not_to_ask_scontrol() -> str:
    """Why scontrol cannot be asked here, or ""."""
    if not shutil.which("scontrol"):
        return "scontrol is not on PATH"
    with tempfile.TemporaryDirectory() as directory:
        try:
            return "" if ask_scontrol("a[1-2]", Path(directory)) == ("a1", "a2") else "scontrol knows no a[1-2]"
        except subprocess.CalledProcessError as error:
            return f"scontrol does not answer: {error.stderr.strip()}"


def ask_scontrol(text: str, directory: Path) -> tuple[str, ...]:
    """What `scontrol show hostnames` makes of a list; it wants a slurm.conf, but no running Slurm.

    A configuration named by SLURM_CONF is used as it is, else one of four lines is written into the directory.
    """
    configuration = directory / "slurm.conf"
    if not configuration.exists():
        configuration.write_text(
            "ClusterName=x\nSlurmctldHost=localhost\nNodeName=localhost\nPartitionName=p Nodes=ALL\n"
        )
    environ = {"SLURM_CONF": str(configuration), **os.environ}
    command = ["scontrol", "show", "hostnames", text]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=True)
    return tuple(result.stdout.split())
