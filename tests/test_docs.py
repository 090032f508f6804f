"""The README keeps its word: what it says can be typed works, and what it points to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hpc import Runtime
from hpc.config import settings_of
from tests.conftest import ROOT, FakeSlurm, Run

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
SUBMISSIONS = [
    line.partition("#")[0].strip()
    for _, block in BLOCKS
    for line in block.splitlines()
    if line.startswith("python run.py -m") and "cluster=local" not in line
]


def block(language: str, containing: str) -> str:
    (found,) = [text for name, text in BLOCKS if name == language and containing in text]
    return str(found)


@pytest.mark.parametrize("line", SUBMISSIONS)
def test_every_submission_in_the_readme_can_be_submitted(line: str, run_py: Run, fake_slurm: FakeSlurm) -> None:
    done = run_py(*shlex.split(line)[2:], environ=fake_slurm.environ)
    assert done.returncode == 0, done.stderr
    assert fake_slurm.scripts


def test_there_are_submissions_in_the_readme() -> None:
    assert len(SUBMISSIONS) >= 3


def test_the_site_in_the_readme_is_a_cluster() -> None:
    site = OmegaConf.create(block("yaml", "mysite"))
    assert settings_of({"cluster": site}).cluster.account == "project_1234"


def test_a_project_of_ones_own_composes_as_the_readme_says(run_hpc: Run, tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text(block("yaml", "# conf/config.yaml"))
    done = run_hpc(
        "run", "--config-path", f"{tmp_path}/conf", "-m", "hardware=8xA100", "steps=1,2", environ=fake_slurm.environ
    )
    assert done.returncode == 0, done.stderr
    (script,) = fake_slurm.scripts
    assert "#SBATCH --job-name=mine\n" in script


def test_the_loop_in_the_readme_uses_what_the_runtime_has() -> None:
    code = block("python", "def train")
    compile(code, "README.md", "exec")
    used = set(re.findall(r"runtime\.(\w+)\(", code))
    assert used >= {"prepare", "steps", "accumulate", "backward", "log", "gather"}
    assert all(callable(getattr(Runtime, name)) for name in used)


def test_every_file_the_readme_names_is_there() -> None:
    named = set(re.findall(r"\b((?:hpc|conf|tests|slurm_templates|hydra_plugins)/[\w/.]*)", README)) - {
        "conf/cluster/mysite.yaml",
        "conf/config.yaml",
    }
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
