"""What a config says is what the training function gets, however it is started."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.run.points import load_sweep
from tests.config.bad_input import CONFIG
from tests.conftest import Completed, FakeSlurm, Run, clean_environment, runner

VALUES = r"""
weights: {0: 1.0, 3: 5.0, true: x, "1": text, 1.5: half}
fill: [.nan, .inf, -.inf]
text: "one\ttwo\nthree \\ 'four' \"five\" été 日本 %j"
home: ~/x
nothing: null
empty: {}
number: ${hydra:job.num}
doubled: ${double:21}
above: ${data.batch_size}
shell: "\\${HOME}/x"
below: ${hydra:runtime.output_dir}/curves
"""
JOB = """
import json, os
from pathlib import Path
from omegaconf import OmegaConf

OmegaConf.register_new_resolver("double", lambda number: 2 * number)

def train(cfg):
    from hydra.core.hydra_config import HydraConfig
    known = HydraConfig.get()
    seen = OmegaConf.to_container(cfg, resolve=True)
    seen.pop("run_dir"), seen.pop("cluster"), seen.pop("runtime")
    places = {known.runtime.output_dir, seen.pop("below").removesuffix("/curves")}
    told = [repr(seen), known.job.num, known.runtime.choices["hardware"], places == {cfg.run_dir}]
    rank = os.environ.get("RANK", "0")
    Path(os.environ["TOLD"], f"{rank}.json").write_text(json.dumps(told))
    return cfg.weights[3]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's own, with every kind of value."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/config.yaml").write_text(CONFIG + VALUES)
    (tmp_path / "job.py").write_text(JOB)
    return tmp_path


def told(directory: Path, rank: int = 0) -> list[object]:
    found: list[object] = json.loads((directory / f"{rank}.json").read_text())
    return found


def test_a_config_arrives_as_it_was_written_however_it_is_started(project: Path) -> None:
    run = runner(project, "-m", "hpc", "run", "--config-path", "conf", "runtime.device=cpu")
    ways = {name: project / name for name in ("here", "worker", "torchrun")}
    for directory in ways.values():
        directory.mkdir()
    here = run("run_dir=runs/here", environ={"TOLD": str(ways["here"])})
    worker = run("-m", "cluster=local", "run_dir=runs/worker", environ={"TOLD": str(ways["worker"])})
    torchrun = under_torchrun(project, ways["torchrun"])
    assert [here.returncode, worker.returncode, torchrun.returncode] == [0, 0, 0], here.stderr + worker.stderr
    seen = told(ways["here"])
    assert "0: 1.0, 3: 5.0, True: 'x', '1': 'text', 1.5: 'half'" in str(seen[0])
    assert "'doubled': 42" in str(seen[0])
    assert "'home': '~/x'" in str(seen[0])
    assert "'shell': '${HOME}/x'" in str(seen[0])
    assert seen[1:] == [0, "laptop", True]
    assert told(ways["worker"]) == told(ways["torchrun"]) == told(ways["torchrun"], rank=1) == seen
    again = run("run_dir=runs/here", environ={"TOLD": str(ways["here"])})
    assert (again.returncode, "is finished: it returned 5.0" in again.stdout) == (0, True), again.stderr


def under_torchrun(project: Path, directory: Path) -> Completed:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = ["-m", "hpc", "run", "--config-path", "conf", "runtime.device=cpu", "run_dir=runs/torchrun"]
    return subprocess.run(
        [sys.executable, *launcher, *command],
        cwd=project, env=clean_environment(TOLD=str(directory)),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def points(directory: Path) -> list[dict[str, object]]:
    return [point.config for point in load_sweep(directory).points]


def test_each_point_knows_its_own_number(run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    done = run_py(
        "-m", "hardware=cpu", "cluster.partition=cpu", "+n=${hydra:job.num}", "+at=${hydra:runtime.output_dir}",
        "+shell='\\${HOME}'", "seed=5,6,7", "run_dir=out",
        environ=fake_slurm.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = points(tmp_path / "out")
    assert [(point["n"], point["seed"]) for point in found] == [(0, 5), (1, 6), (2, 7)]
    assert [point["at"] for point in found] == [point["run_dir"] for point in found]
    assert {point["shell"] for point in found} == {"${HOME}"}


def test_a_sweep_may_stand_in_a_file_and_what_is_typed_wins(project: Path, fake_slurm: FakeSlurm) -> None:
    grid = '# @package _global_\nhydra: {sweeper: {params: {data.batch_size: "1,2", seed: "3,4"}}}\n'
    (project / "conf/experiment").mkdir()
    (project / "conf/experiment/grid.yaml").write_text(grid)
    run = runner(project, "-m", "hpc", "run", "--config-path", "conf")
    done = run(
        "-m", "+experiment@_global_=grid", "seed=9", "hardware=cpu", "cluster.partition=cpu", "run_dir=out",
        environ=fake_slurm.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [(p["data"], p["seed"]) for p in points(project / "out")] == [({"batch_size": n}, 9) for n in (1, 2)]


@pytest.mark.parametrize(("typed", "name"), [("42", "42"), ("'a b/é'", "a b/é"), ("'~/x'", "home/x")])
def test_what_is_typed_is_the_directory(project: Path, fake_slurm: FakeSlurm, typed: str, name: str) -> None:
    run = runner(project, "-m", "hpc", "run", "--config-path", "conf")
    environ = {**fake_slurm.environ, "HOME": str(project / "home"), "TOLD": str(project)}
    submitted = run("-m", "hardware=cpu", "cluster.partition=cpu", f"run_dir={typed}", environ=environ)
    assert submitted.returncode == 0, submitted.stderr
    assert len(points(project / name)) == 1
    assert f"--comment={Path(name).name}" in fake_slurm.scripts[0].replace("'", "")


def test_points_go_where_their_own_cluster_says(project: Path, fake_slurm: FakeSlurm) -> None:
    run = runner(project, "-m", "hpc", "run", "--config-path", "conf", "runtime.device=cpu")
    environ = {**fake_slurm.environ, "TOLD": str(project)}
    done = run("-m", "cluster=slurm,local", "run_dir=out", environ=environ)
    assert done.returncode == 0, done.stderr
    (script,) = fake_slurm.scripts
    assert "hpc_points=(0)" in script
    assert not (project / "out/0/finished.json").exists()
    assert json.loads((project / "out/1/finished.json").read_text())["value"] == 5.0
