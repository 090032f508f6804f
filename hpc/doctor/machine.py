"""Does this machine have what ranks need? Without importing torch: what it was built for is written in its files."""

from __future__ import annotations

import importlib.util
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from hpc.doctor.finding import NOTE, OK, PROBLEM, Finding

LITTLE_SHARED_MEMORY = 1_000_000_000
SHARED_MEMORY = Path("/dev/shm")
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
"""By CUDA's major version: the oldest driver that runs it (CUDA Toolkit release notes, minor version compatibility)."""


def shared_memory() -> Iterator[Finding]:
    """DataLoader workers and NCCL hand data over in /dev/shm."""
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError as error:
        advice = "In a container, bind or enlarge /dev/shm."
        yield Finding("shared_memory", PROBLEM, f"{SHARED_MEMORY} cannot be used: {error.strerror}.", advice)
        return
    text = f"{free / 1e9:.1f} GB are free in {SHARED_MEMORY}"
    if free < LITTLE_SHARED_MEMORY:
        advice = "In a container, enlarge it (--shm-size); or use data.workers=0."
        yield Finding("shared_memory", NOTE, f"{text}, little for DataLoader workers and NCCL.", advice)
    else:
        yield Finding("shared_memory", OK, f"{text}.")


def ports() -> Iterator[Finding]:
    """Whether this host can listen, and be reached under its own name."""
    host = socket.gethostname()
    try:
        with socket.create_server(("", 0)) as server:
            port = server.getsockname()[1]
            with socket.create_connection((host, port), timeout=10):
                pass
    except OSError as error:
        advice = "`hpc doctor --canary` tries the nodes; runtime.interface chooses a network that they share."
        yield Finding("ports", NOTE, f"{host} does not reach itself under its name: {error.strerror or error}.", advice)
        return
    yield Finding("ports", OK, f"{host} listens, and is reached under its name.")


def torch_fit() -> Iterator[Finding]:
    """Whether torch was built for the GPU driver that is here."""
    version, cuda = _torch_build()
    driver = _driver()
    if not version:
        yield Finding("torch", PROBLEM, "torch cannot be found by this Python.", "Install it: pip install hpc.")
    elif not driver:
        yield Finding("torch", OK, f"torch {version}; there is no NVIDIA driver on this machine.")
    elif not cuda:
        advice = "Install torch as https://pytorch.org/get-started says for this driver."
        yield Finding("torch", PROBLEM, f"torch {version} has no CUDA, and the driver here is {driver}.", advice)
    elif int(driver.split(".")[0]) < OLDEST_DRIVER.get(int(cuda.split(".")[0]), 0):
        oldest = OLDEST_DRIVER[int(cuda.split(".")[0])]
        text = f"torch {version} is built for CUDA {cuda}, which needs driver {oldest} or newer, but here is {driver}."
        yield Finding("torch", PROBLEM, text, "Install torch for an older CUDA, or ask for a newer driver.")
    else:
        yield Finding("torch", OK, f"torch {version} for CUDA {cuda} fits driver {driver}.")


def _torch_build() -> tuple[str, str]:
    """Its version and its CUDA's, from torch/version.py; "" for what there is none of."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return "", ""
    text = (Path(found.origin).parent / "version.py").read_text()
    version = re.search(r"^__version__ *=.*?'([^']+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda[^=\n]*= *'([^']+)'", text, re.MULTILINE)
    return version[1] if version else "unknown", cuda[1] if cuda else ""


def _driver() -> str:
    """The version of NVIDIA's driver, or ""."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.match(r"\d+(\.\d+)*", done.stdout.strip())
    return found[0] if found else ""


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (shared_memory, ports, torch_fit)
