"""`hpc init site`: from what scontrol prints to a preset that a job can be planned with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hpc.config import settings_of
from hpc.errors import ConfigurationError
from hpc.submit.site_preset import as_yaml, site_preset
from tests.conftest import ROOT, FakeSlurm, Run
from tests.doctor.test_cluster import CAPTURED, CONFIG, NODES, PARTITIONS, surveyed

SCONTROL = """#!/bin/sh
case "$*" in
*config*) cat "{folder}/config.txt" ;;
*partition*) cat "{folder}/partition.txt" ;;
*node*) cat "{folder}/node.txt" ;;
esac
"""
ENFORCED = ("AccountingStorageEnforce = none", "AccountingStorageEnforce = limits")


def preset(*changes: tuple[str, str], partition: str | None = None, account: str | None = None) -> dict[str, Any]:
    return site_preset(surveyed(*changes), partition, account, "2026-11-29")


def test_a_preset_says_what_the_controller_says() -> None:
    found = preset(("MaxNodes=UNLIMITED", "MaxNodes=2"))
    assert found == {
        "scheduler": "slurm",
        "site": "lab",
        "source": "scontrol show config, partition and node, on lab",
        "checked_on": "2026-11-29",
        "partition": "low",
        "gres": "gpu:{gpu_type}:{gpus_per_node}",
        "limits": [
            {"partition": "low", "nodes": 2, "time_limit_minutes": 10080},
            {"partition": "high", "nodes": 2, "time_limit_minutes": 10080},
        ],
    }
    assert settings_of({"cluster": OmegaConf.create(as_yaml(found))}) == settings_of({"cluster": found})


def test_spellings_and_accounts_are_those_of_the_cluster() -> None:
    assert preset(("Gres=gpu:a100:8", "Gres=gpu:8"))["gres"] == "gpu:{gpus_per_node}"
    assert preset(("Gres=gpu:a100:8", "Gres=(null)"))["gres"] is None
    assert preset(("MaxTime=7-00:00:00", "MaxTime=UNLIMITED"))["limits"] == []
    assert preset(ENFORCED, account="lab1")["account"] == "lab1"
    assert preset(ENFORCED)["required"]["account"]["why"] == "accounts are enforced here"
    assert preset(partition="high")["partition"] == "high"


def test_a_partition_must_be_known() -> None:
    with pytest.raises(ConfigurationError, match="--partition must be one of low, high, but is none"):
        preset(partition="none")
    with pytest.raises(ConfigurationError, match="--partition must be given, because none is the default: low, high"):
        preset(("Default=YES", "Default=NO"))


def test_what_is_written_is_used_and_never_replaced(run_hpc: Run, tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    (fake_slurm.directory / "bin" / "scontrol").write_text(SCONTROL.format(folder=CAPTURED))
    done = run_hpc("init", "site", "mine", environ=fake_slurm.environ)
    assert (done.returncode, done.stderr) == (0, "")
    path = tmp_path / "conf" / "cluster" / "mine.yaml"
    assert done.stdout.startswith("Wrote conf/cluster/mine.yaml.")
    again = run_hpc("init", "site", "mine", environ=fake_slurm.environ)
    assert (again.returncode, again.stdout) == (78, "")
    assert again.stderr == (
        "hpc: conf/cluster/mine.yaml must not be there yet, but is: choose another NAME, or delete it.\n"
    )
    (tmp_path / "conf" / "config.yaml").write_text((ROOT / "conf" / "config.yaml").read_text())
    script = run_hpc(
        "script", "--config-path", str(tmp_path / "conf"), "cluster=mine", "hardware=8xA100", environ=fake_slurm.environ
    )
    assert script.returncode == 0, script.stderr
    assert "#SBATCH --partition=low\n" in script.stdout
    printed = run_hpc("init", "site", "--json", environ=fake_slurm.environ)
    assert json.loads(printed.stdout)["cluster"] == OmegaConf.to_container(OmegaConf.load(path))


def test_the_captured_texts_are_a_whole_cluster() -> None:
    assert "ClusterName" in CONFIG
    assert PARTITIONS.count("PartitionName=") == 2
    assert NODES.count("NodeName=") == 2
