"""The pages of the documentation keep their word: commands and code on them run, and every error is explained."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import TensorDataset

from hpc import errors
from hpc.attempt.cause import KINDS, OF_CODE
from hpc.config import settings_of
from tests.conftest import ROOT, FakeSlurm, Run, clean_environment

DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def commands(*scripts: str) -> str:
    """A shell's script of these, in which `hpc` is the one that is tested, and `python` the one that tests."""
    python = f'python() {{ {shlex.quote(sys.executable)} "$@"; }}'
    return "\n".join([python, 'hpc() { python -m hpc "$@"; }', "set -eu", *scripts])


def test_the_five_minute_start_can_be_typed(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    script = commands(*blocks("index.md", "sh"))
    environ = clean_environment(**fake_slurm.environ, CUDA_VISIBLE_DEVICES="")
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "#SBATCH --gres=gpu:a100:8\n" in done.stdout
    assert len(fake_slurm.scripts) == 2
    assert "#SBATCH --array=0-3" in fake_slurm.scripts[1]
    (report,) = (tmp_path / "sine" / "runs").glob("*/*/report.html")
    assert report.stat().st_size > 1e6


def test_the_project_on_the_page_trains(run_hpc: Run, tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    """And its cluster is one."""
    (script,), (config, site) = blocks("project.md", "python"), blocks("project.md", "yaml")
    for name, text in (("train.py", script), ("conf/config.yaml", config), ("conf/cluster/mysite.yaml", site)):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    done = run_hpc("run", "--config-path", "conf", "run_dir=out", "runtime.device=cpu")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "finished.json").read_text())["value"] < 0.5
    arguments = ("run", "--config-path", "conf", "-m", "cluster=mysite", "hardware=8xA100", "run_dir=sent")
    assert run_hpc(*arguments, environ=fake_slurm.environ).returncode == 0
    assert "#SBATCH --account=project_1234\n" in fake_slurm.scripts[0]


def test_the_settings_for_people_from_submitit_say_the_same() -> None:
    before, *files = (yaml.safe_load(each) for each in blocks("from-submitit.md", "yaml"))
    settings = settings_of({"hardware": files[0], "cluster": files[1]})
    hardware, cluster = settings.hardware, settings.cluster
    assert before == {
        "timeout_min": hardware.time_limit_minutes,
        "nodes": hardware.nodes,
        "tasks_per_node": hardware.tasks_per_node,
        "gpus_per_node": hardware.gpus_per_node,
        "cpus_per_task": hardware.cpus_per_task,
        "mem_gb": hardware.memory_gb,
        "partition": cluster.partition,
        "account": cluster.account,
        "array_parallelism": cluster.max_parallel_points,
    }


def test_every_setting_that_the_page_from_submitit_names_exists() -> None:
    text = (DOCS / "from-submitit.md").read_text()
    settings = settings_of({})
    named = re.findall(r"`(hardware|cluster|launch)\.(\w+)", text)
    assert len(named) > 12
    assert [name for name in named if not hasattr(getattr(settings, name[0]), name[1])] == []


def test_the_loops_for_people_from_torchrun_end_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(_: Any) -> tuple[nn.Linear, TensorDataset]:
        torch.manual_seed(0)
        inputs = torch.randn(32, 4)
        return nn.Linear(4, 1), TensorDataset(inputs, inputs.sum(1, keepdim=True))

    def trained(script: str, cfg: dict[str, Any]) -> dict[str, torch.Tensor]:
        names: dict[str, Any] = {"build": build}
        exec(script, names)
        state: dict[str, torch.Tensor] = names["train"](cfg).state_dict()
        return state

    before, here = blocks("from-torchrun.md", "python")
    cfg = {"epochs": 2, "run_dir": str(tmp_path), "runtime": {"device": "cpu", "trackers": []}}
    ours = trained(here, cfg)
    with monkeypatch.context() as torchrun:
        for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
            torchrun.setenv(name, value)
        theirs = trained(before, cfg)
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(ours["weight"], build({})[0].weight, atol=1e-2)


ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (DOCS / "errors.md").read_text().splitlines()
    if line.startswith("|")
]


def test_every_error_is_explained_with_its_exit_code() -> None:
    kinds = {
        name: str(kind.exit_code)
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.HpcError)
    }
    assert {row[1].partition(",")[0]: row[0] for row in ROWS if "Error" in row[1]} == kinds
    codes = {str(value) for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert codes <= {row[0] for row in ROWS}


def test_every_kind_of_cause_is_explained() -> None:
    told = {kind for row in ROWS for kind in re.findall(r"^`(\w+)`$", row[2] if len(row) == 5 else row[0])}
    assert told == {*KINDS}
    for row in ROWS:
        if len(row) == 5 and row[0].isdigit() and int(row[0]) in OF_CODE:
            assert row[2] == f"`{OF_CODE[int(row[0])]}`"


def test_every_page_is_in_the_site_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    """As `make docs` builds it: strictly."""
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env=clean_environment(NO_MKDOCS_2_WARNING="1"), capture_output=True, text=True, timeout=400,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.with_suffix(".html").name for path in DOCS.glob("*.md")}
    assert pages <= {path.name for path in (tmp_path / "site").glob("*.html")}
    assert "find_executable_batch_size" in (tmp_path / "site" / "reference.html").read_text()
