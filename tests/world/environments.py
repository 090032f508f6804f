"""Environments: captured on a real Slurm, or as the other launchers set them."""

from __future__ import annotations

from pathlib import Path

CAPTURED = Path(__file__).parent.parent / "slurm_env"
"""Written by `env` on Slurm 22.05.8; names are <launch>.<node>.<procid>.env."""

ENV = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
ENV_LOCAL = {**ENV, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "41985",
    "TORCHELASTIC_RUN_ID": "abc",
    "TORCHELASTIC_RESTART_COUNT": "2",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}

SUBMITIT_LOCAL = {
    "SUBMITIT_EXECUTOR": "local",
    "SUBMITIT_LOCAL_JOB_ID": "4711",
    "SUBMITIT_LOCAL_NTASKS": "8",
    "SUBMITIT_LOCAL_GLOBALID": "5",
    "SUBMITIT_LOCAL_LOCALID": "5",
    "SUBMITIT_LOCAL_NODEID": "0",
    "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
}


def captured(name: str) -> dict[str, str]:
    """The environment in tests/slurm_env/<name>.env."""
    lines = (CAPTURED / f"{name}.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
