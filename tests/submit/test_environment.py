"""What a new job inherits: what the user has exported, and nothing that another launcher has set."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.submit.environment import scrubbed
from hpc.world import resolve_world
from hpc.world.launchers import LAUNCHERS
from tests.conftest import ROOT

CAPTURES = sorted([*(ROOT / "tests/slurm_env").glob("*.env"), *(ROOT / "tests/launcher_env").rglob("*.env")])


def captured(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_nothing_of_a_launcher_is_left(path: Path) -> None:
    """A point that is rehearsed or submitted from inside any job is a process that nobody has numbered."""
    left = scrubbed(captured(path))
    assert resolve_world(left).source == "none"
    assert not [name for name in left if "RANK" in name or name.startswith(("PMI", "OMPI_", "SBATCH_"))]


def test_every_launcher_owns_what_it_is_recognised_by() -> None:
    for launcher in LAUNCHERS:
        assert scrubbed(dict.fromkeys((*launcher.signs, *launcher.needs), "1")) == {}


def test_the_wishes_of_a_login_shell_are_kept_and_those_of_a_job_are_not() -> None:
    wishes = {"SBATCH_ACCOUNT": "lab", "SBATCH_EXPORT": "NONE", "SLURM_CONF": "/etc/x", "HOME": "/home/me"}
    assert scrubbed(wishes) == wishes
    inside = scrubbed({**wishes, "SLURM_JOB_ID": "7", "SLURM_NTASKS": "3"})
    assert inside == {"SLURM_CONF": "/etc/x", "HOME": "/home/me"}


def test_what_the_script_sets_wins_over_the_login_shell() -> None:
    wishes = {
        "SBATCH_ACCOUNT": "lab",
        "SBATCH_PARTITION": "gpu",
        "SBATCH_TIMELIMIT": "5",
        "SBATCH_MEM_PER_CPU": "1G",
        "SBATCH_NO_REQUEUE": "1",
        "SBATCH_ARRAY_INX": "1-3",
    }
    assert scrubbed(wishes, ["partition", "time", "mem", "requeue", "array"]) == {"SBATCH_ACCOUNT": "lab"}
    assert scrubbed({"SBATCH_GPUS": "2", "SBATCH_GRES": "nvme:1"}, ["gpus-per-node"]) == {"SBATCH_GRES": "nvme:1"}


@pytest.mark.parametrize("name", ["SBATCH_ARRAY_INX", "SBATCH_ERROR", "SBATCH_WAIT"])
def test_what_would_make_another_job_of_it_is_never_handed_on(name: str) -> None:
    assert scrubbed({name: "1", "SBATCH_QOS": "low"}) == {"SBATCH_QOS": "low"}
