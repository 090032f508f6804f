"""What does this machine have for points: CPUs, memory, GPUs? Asked without torch."""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

ASK_SECONDS = 30
GPU_LINE = re.compile(r"GPU (\d+): (.*) \(UUID: (\S+)\)")
SLICE_LINE = re.compile(r"\s+MIG .*\(UUID: (\S+)\)")
CGROUP = Path("/sys/fs/cgroup")
GIBI = 1 << 30


@dataclass(frozen=True)
class Machine:
    """What points may have together.

    Args:
        cpus: How many.
        memory_gb: In GiB, as hardware.memory_gb is.
        gpus: Names as CUDA_VISIBLE_DEVICES takes them: UUIDs where they are known, else numbers.
    """

    cpus: int
    memory_gb: float
    gpus: tuple[str, ...]


def this_machine(environ: Mapping[str, str]) -> Machine:
    """This machine, less what a container or the environment hides of it.

    Args:
        environ: Where CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER may be.
    """
    return Machine(_cpus(), _memory_gb(), visible_gpus(environ, _nvidia_smi()))


def visible_gpus(environ: Mapping[str, str], listing: str) -> tuple[str, ...]:
    """The GPUs that a program here may use.

    Args:
        environ: CUDA_VISIBLE_DEVICES may choose some: by number, by UUID or the beginning of one, or slices by their
            names (CUDA C++ Programming Guide, "CUDA Environment Variables"). Like CUDA, it is read up to the first
            name that means nothing.
        listing: What `nvidia-smi -L` prints. A GPU that is sliced (MIG) counts as its slices.
    """
    gpus = _listed(listing)
    names = [name for gpu in gpus for name in gpu.names]
    asked = environ.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return tuple(names)
    numbered = [gpu.names[0] for gpu in gpus]
    if len({gpu.model for gpu in gpus}) > 1 and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        numbered = list(map(str, range(len(gpus))))  # CUDA then counts from the fastest one on, nvidia-smi does not
    found: dict[str, None] = {}
    for text in map(str.strip, asked.split(",")):
        name = _meant(text, numbered, [*names, *(gpu.uuid for gpu in gpus)])
        if not name:
            break
        found[name] = None
    return tuple(found)


@dataclass(frozen=True)
class _Gpu:
    model: str
    uuid: str
    slices: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.slices or (self.uuid,)


def _listed(listing: str) -> list[_Gpu]:
    gpus: list[_Gpu] = []
    for line in listing.splitlines():
        if whole := GPU_LINE.match(line):
            gpus.append(_Gpu(whole[2], whole[3], ()))
        elif (part := SLICE_LINE.match(line)) and gpus:
            gpus[-1] = _Gpu(gpus[-1].model, gpus[-1].uuid, (*gpus[-1].slices, part[1]))
    return gpus


def _meant(text: str, numbered: list[str], names: list[str]) -> str:
    """The GPU that one entry of CUDA_VISIBLE_DEVICES means, or "" where it means none."""
    if text.isdecimal():
        if not numbered:  # nobody can be asked
            return text
        return numbered[int(text)] if int(text) < len(numbered) else ""
    if not text.startswith(("GPU-", "MIG-")):
        return ""
    alike = [name for name in dict.fromkeys(names) if name.startswith(text)]
    return alike[0] if len(alike) == 1 else "" if names else text


def _nvidia_smi() -> str:
    command = ["nvidia-smi", "-L"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):  # no such command, or a driver that does not answer
        return ""
    return done.stdout if done.returncode == 0 else ""


def _cpus() -> int:
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has none
        cpus = os.cpu_count() or 1
    quota, _, period = _cgroup("cpu.max").partition(" ")
    return min(cpus, max(1, math.ceil(int(quota) / int(period)))) if quota.isdecimal() and period.isdecimal() else cpus


def _memory_gb() -> float:
    limit = _cgroup("memory.max")
    total: int = psutil.virtual_memory().total
    return min(total, int(limit) if limit.isdecimal() else total) / GIBI


def _cgroup(name: str) -> str:
    """A limit of this container (cgroup v2), or "" where there is none."""
    try:
        return (CGROUP / name).read_text().strip()
    except OSError:
        return ""
