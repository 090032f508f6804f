"""`hpc checkpoint`: a run's checkpoints listed, verified and exported, on a login node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from hpc.checkpoint.save import commit, snapshot
from hpc.cli import main
from hpc.run.events import Verified
from tests.checkpoint.test_store import flip_a_bit
from tests.conftest import ROOT, clean_environment
from tests.support.events import told
from tests.support.saves import Alone, Life, state


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 10 and 20."""
    life = Life(tmp_path / "run" / "checkpoints")
    for step in (10, 20):
        life.save(step, held_out_loss=1.0 / step)
    return tmp_path / "run"


def hpc(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["checkpoint", *map(str, arguments)])


def test_a_list_shows_step_size_age_verification_and_metrics(run: Path) -> None:
    lines = hpc("ls", run).output.splitlines()
    assert lines[1].split() == ["step", "size", "age", "verified", "logged"]
    assert [line.split()[0] for line in lines[2:]] == ["20", "10"]
    assert "MB" in lines[2]
    assert "not read back" in lines[2]
    assert "held_out_loss 0.05" in lines[2]


def test_verifying_reads_everything_and_the_list_remembers(run: Path) -> None:
    done = hpc("verify", run)
    assert done.exit_code == 0
    assert done.output.count("3 files as they were written") == 2
    assert {event.step for event in told(run, Verified)} == {10, 20}
    assert hpc("ls", run).output.count(" ago") == 2


def test_programs_are_told_the_same_in_json(run: Path) -> None:
    (point,) = json.loads(hpc("ls", run, "--json").output)["points"]
    assert point["directory"] == str(run)
    assert [(each["step"], each["read_back_at"], each["problem"]) for each in point["checkpoints"]] == [
        (20, None, ""), (10, None, ""),
    ]  # fmt: skip
    assert point["checkpoints"][0]["metrics"] == {"held_out_loss": 0.05}
    exported = json.loads(hpc("export", run, "--json").output)
    assert (exported["step"], exported["bytes"]) == (20, Path(exported["file"]).stat().st_size)
    flip_a_bit(run / "checkpoints" / "step_00000020")
    done = hpc("verify", run, "--json")
    assert done.exit_code == 65
    assert [bool(each["problems"]) for each in json.loads(done.output)["checkpoints"]] == [True, False]
    assert json.loads(hpc("ls", run, "--json").output)["points"][0]["checkpoints"][1]["read_back_at"] is not None


def test_damage_is_named_and_ends_with_65(run: Path) -> None:
    flip_a_bit(run / "checkpoints" / "step_00000020")
    done = hpc("verify", run)
    assert done.exit_code == 65
    assert "step_00000020: damaged: model.safetensors does not have the checksum" in done.output
    (run / "checkpoints" / "step_00000010" / "manifest.json").write_text("{")
    assert hpc("ls", run).output.splitlines()[-1].split()[:4] == ["10", "?", "?", "damaged"]


@pytest.mark.parametrize("verb", ["verify", "export"])
def test_a_directory_without_checkpoints_is_one_sentence(tmp_path: Path, verb: str) -> None:
    done = hpc(verb, tmp_path)
    assert done.exit_code == 65
    assert done.output.startswith(f"hpc: {tmp_path} must be a run directory with")


@pytest.mark.parametrize("file_format", ["safetensors", "pt"])
def test_an_export_is_loaded_by_its_own_library(run: Path, file_format: str) -> None:
    flip_a_bit(run / "checkpoints" / "step_00000020")
    done = hpc("export", run, "--format", file_format)
    assert done.exit_code == 0, done.output
    path = run / f"model.{file_format}"
    weights = load_file(path) if file_format == "safetensors" else torch.load(path)
    assert "step_00000020 is passed over" in done.output
    assert f"{path}: step 10" in done.output
    state().models[0].load_state_dict(weights)
    assert all(bool((tensor == 10).all()) for tensor in weights.values())


def test_tied_weights_are_exported_once_and_named(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False))
    model[1].weight = model[0].weight
    life = Life(tmp_path / "run" / "checkpoints")
    tied = state()
    tied.models[:], tied.optimizers[:] = [model], []
    commit(life.store, Alone(), snapshot(tied, 1, 0, {}, {}))
    assert hpc("export", tmp_path / "run").exit_code == 0
    assert list(load_file(tmp_path / "run" / "model.safetensors")) == ["0.weight"]
    content = (tmp_path / "run" / "model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"] == {"1.weight": "0.weight"}
    assert hpc("export", tmp_path / "run", "--format", "pt").exit_code == 0
    model.load_state_dict(torch.load(tmp_path / "run" / "model.pt"))


PROGRAM = """
import sys
from hpc.cli import main
main(["checkpoint", sys.argv[1], sys.argv[2]], standalone_mode=False)
if "torch" in sys.modules:
    sys.exit("torch was imported")
"""


@pytest.mark.parametrize("verb", ["ls", "verify"])
def test_a_login_node_needs_no_torch_to_look(run: Path, verb: str) -> None:
    command = [sys.executable, "-c", PROGRAM, verb, str(run)]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_sweep_is_all_its_points(tmp_path: Path) -> None:
    for number in (0, 1, 10):
        Life(tmp_path / "sweep" / str(number) / "checkpoints").save(5)
    lines = hpc("ls", tmp_path / "sweep").output.splitlines()
    assert [line for line in lines if line.startswith("/")] == [str(tmp_path / "sweep" / n) for n in ("0", "1", "10")]
