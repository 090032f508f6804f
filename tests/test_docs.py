"""The README keeps its word: what it says can be typed works, and what it points to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hpc.config import settings_of
from tests.conftest import ROOT, FakeSlurm, Run
from tests.test_layers import LAYERS

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


CONTAINERS = (ROOT / "docs" / "containers.md").read_text()
CONTAINER_LINES = [
    line.partition("#")[0].strip()
    for text in re.findall(r"```\n(.*?)```", CONTAINERS, re.DOTALL)
    for line in text.splitlines()
]
TOOL = """#!/bin/sh
{ echo "$(basename "$0") $*"; ls; } >"$TOLD"
"""


@pytest.mark.parametrize("line", CONTAINER_LINES)
def test_every_command_about_containers_works(
    line: str, run_py: Run, run_hpc: Run, tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    """Tools that build images are there in name only; images that nodes would have are empty files."""
    for tool in ("podman", "apptainer"):
        (fake_slurm.directory / "bin" / tool).write_text(TOOL)
        (fake_slurm.directory / "bin" / tool).chmod(0o755)
    (tmp_path / "project.sif").touch()
    fake_slurm.answer("sinfo", "gpu*|2-00:00:00|8|128|2060000|gpu:a100:8,gpu:h100:8\n")
    program, *words = shlex.split(line.replace("/shared/images", str(tmp_path)).replace("python run.py", "run.py"))
    told = tmp_path / "told"
    done = {"run.py": run_py, "hpc": run_hpc}[program](*words, environ={**fake_slurm.environ, "TOLD": str(told)})
    assert done.returncode == 0, done.stderr
    if "--build" in words:
        asked, *files = told.read_text().splitlines()
        assert asked.startswith(f"{words[words.index('--tool') + 1]} build ")
        assert {"Dockerfile", "hpc", "install.sh", "project", "project.def", "requirements.txt"} == {*files}
    elif program == "hpc":
        assert "pytorch/pytorch:2." in done.stdout
    else:
        assert "hpc_worker" in fake_slurm.scripts[0]


PARTS = """
from types import SimpleNamespace
import torch

class Model(torch.nn.Linear):
    def forward(self, x, y):
        return SimpleNamespace(loss=(super().forward(x) - y).square().mean())

def build(cfg):
    model = Model(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer)
    samples = [{"x": torch.arange(3.0) + number, "y": torch.ones(1)} for number in range(16)]
    return model, optimizer, scheduler, torch.utils.data.DataLoader(samples, batch_size=2)

def evaluate(runtime, model):
    runtime.print(f"evaluated at step {runtime.step}")
    return float(runtime.unwrap(model).weight.sum())
"""


def test_the_loop_in_the_readme_trains_as_it_stands(run_hpc: Run, tmp_path: Path) -> None:
    """In a project of one's own; a life that finds nothing left to train returns the same value."""
    for name, text in (
        ("conf/config.yaml", block("yaml", "# conf/config.yaml")),
        ("my_project/train.py", block("python", "def train")),
        ("my_project/parts.py", PARTS),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    arguments = ("run", "--config-path", f"{tmp_path}/conf", "run_dir=out", "steps=6", "evaluate_every_steps=3")
    values = []
    for expected in (["evaluated at step 3", "evaluated at step 6", "evaluated at step 6"], ["evaluated at step 6"]):
        done = run_hpc(*arguments, "strategy.accumulation_steps=2", "runtime.device=cpu")
        assert done.returncode == 0, done.stderr
        assert [line for line in done.stdout.splitlines() if line.startswith("evaluated")] == expected
        values.append((tmp_path / "out" / "finished.json").read_text())
        (tmp_path / "out" / "finished.json").unlink()
    assert values[0] == values[1]


DOCS = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
OF_A_USER = {"conf/cluster/mysite.yaml", "conf/config.yaml", "conf/hardware/2x8.yaml"}
"""Files that the reader is told to write."""


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    named = {*re.findall(r"(?<![\w/-])((?:hpc|conf|docs|tests|slurm_templates|hydra_plugins)/[\w/.-]*\w)", text)}
    linked = {str((page.parent / link).resolve().relative_to(ROOT)) for link in re.findall(r"\]\(([\w./]+)\)", text)}
    assert named | linked
    assert [name for name in sorted((named | linked) - OF_A_USER) if not (ROOT / name).exists()] == []


def test_the_readme_can_be_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 150


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def test_the_architecture_shows_the_order_of_imports_as_it_is() -> None:
    """Line by line, as `test_layers` holds it."""
    (order,) = re.findall(r"```text\n(environ\n.*?)```", ARCHITECTURE, re.DOTALL)
    shown = [tuple(sorted(line.split())) for line in order.splitlines()]
    assert shown == [tuple(sorted(layer)) for layer in LAYERS]


def test_the_architecture_tells_the_question_of_every_room() -> None:
    rooms = {path.parent.name for path in (ROOT / "hpc").glob("*/__init__.py")}
    assert {*re.findall(r"^\| `(\w+)/`", ARCHITECTURE, re.MULTILINE)} == rooms


def test_every_file_in_the_flows_exists() -> None:
    flows = re.findall(r"```text\n(?!environ)(.*?)```", ARCHITECTURE, re.DOTALL)
    assert len(flows) == 2
    for flow in flows:
        named = re.findall(r"\b[a-z_]+(?:/[a-z_]+)*\.(?:py|sh)\b", flow)
        assert len(named) > 5
        assert [name for name in named if not any((ROOT / folder / name).exists() for folder in ("", "hpc"))] == []
