"""`hpc init project` replaces nothing, and writes all of it or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import FakeSlurm, Run
from tests.support.sweeps import hpc, told_by


@pytest.mark.parametrize("name", ["train.py", "conf/config.yaml", "README.md"])
def test_nothing_is_written_where_a_file_of_it_is(name: str, tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    done = hpc(fake_slurm, "init", "project", tmp_path / "mine")
    assert done.exit_code == 78
    assert f"must not replace anything, but {path} is there" in " ".join(done.stderr.split())
    assert [each for each in (tmp_path / "mine").rglob("*") if each.is_file()] == [path]
    assert path.read_text() == "precious"


def test_what_was_written_is_taken_back_where_the_rest_cannot_be(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    """A file stands where the directory of the config should be."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "conf").write_text("")
    done = hpc(fake_slurm, "init", "project", tmp_path / "mine")
    assert done.exit_code == 78
    assert "must lie in a directory that can be written" in " ".join(done.stderr.split())
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["conf"]


def test_a_directory_that_has_other_files_becomes_a_project(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    directory = tmp_path / "My Project (2)"
    directory.mkdir()
    (directory / "notes.txt").write_text("mine")
    told = told_by(hpc(fake_slurm, "init", "project", directory, "--json"))
    assert sorted(told["files"]) == sorted(
        str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file() and path.name != "notes.txt"
    )
    assert '\nname = "my-project-2"\n' in (directory / "pyproject.toml").read_text()


def test_it_is_submitted_with_a_relative_config_path(run_hpc: Run, tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    assert run_hpc("init", "project").returncode == 0
    arguments = ("run", "--config-path", "conf", "-m", "hardware=8xA100", "optimizer.lr=1e-3,3e-3", "run_dir=out")
    done = run_hpc(*arguments, environ=fake_slurm.environ)
    assert done.returncode == 0, done.stderr
    (script,) = fake_slurm.scripts
    assert "#SBATCH --array=0-1" in script
    lines = (tmp_path / "out" / "points.jsonl").read_text().splitlines()
    assert [json.loads(line)["config"]["experiment"]["target"] for line in lines] == ["train.train"] * 2
