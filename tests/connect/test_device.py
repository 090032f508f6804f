"""Devices that are not here, played by a package that only keeps count."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpc.connect.device import kinds_here, only_device
from hpc.errors import ConfigurationError
from hpc.world import resolve_world
from tests.conftest import ROOT, clean_environment

TORCH_XLA = """
import torch
calls = []
def device():
    return torch.device("meta")
def sync():
    calls.append("sync")
"""
PROGRAM = """
import torch, torch_xla
from hpc.connect.device import kinds_here, only_device
from hpc.data.nest import on_device
from hpc.world import resolve_world
assert kinds_here()["xla"]
assert only_device("xla", resolve_world({})).type == "meta"

class Batch:
    def to(self, device):
        return self

for number, batch in enumerate(on_device([Batch()] * 3, torch.device("xla"))):
    assert len(torch_xla.calls) == number
assert len(torch_xla.calls) == 3
"""


def test_xla_runs_what_it_recorded_before_the_next_batch(tmp_path: Path) -> None:
    (tmp_path / "torch_xla.py").write_text(TORCH_XLA)
    environment = clean_environment(PYTHONPATH=f"{ROOT}:{tmp_path}")
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["xla", "mps"])
def test_an_untried_device_takes_one_rank(kind: str) -> None:
    variables = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    with pytest.raises(ConfigurationError, match=f"device={kind} must have a world of one, but the world has 2 ranks"):
        only_device(kind, resolve_world(variables))


def test_a_cpu_is_always_here() -> None:
    assert kinds_here()["cpu"]
