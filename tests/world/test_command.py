from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from hpc.world import explain_world
from tests.conftest import ROOT, Run, clean_environment
from tests.world.environments import ENV, TORCHRUN, captured

PROGRAM = """
import sys
from hpc.cli.world import world_command
try:
    world_command()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""

TABLE = """\
rank        2 of 3
local rank  1 of 2
node        0 of 2
hosts       node1 node2
source      slurm
job         lab.38.0, attempt 0
rank 0      is found through its beacon

slurm  chosen    SLURM_STEP_NUM_TASKS=3
none   rejected  rank 0 of 1, but slurm comes first

not here: torchrun kubeflow env jsrun openmpi mvapich2 pals flux intel-mpi mpich cray-pmi pmi pmix
          htcondor xla submitit-local hyperqueue srun-pmi sagemaker kubernetes lsf pbs sge
"""


def hpc_world(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command as its own process; the last line of stderr says whether torch was imported."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    environment = clean_environment(**environ)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_table_shows_the_answer_and_every_candidate() -> None:
    result = hpc_world(**captured("uneven_cyclic.node1.2"))
    assert (result.returncode, result.stdout) == (0, TABLE)


def test_torch_is_not_imported() -> None:
    assert hpc_world().stderr == "False\n"


def test_warnings_end_the_table() -> None:
    result = hpc_world(**captured("batch_step.node1.0"))
    assert result.stdout.endswith("\n\nwarning: This allocation has 4 tasks and this process is one alone: prefix the"
                                  " command with `srun`.\n")  # fmt: skip


def test_a_given_meeting_point_is_shown() -> None:
    assert "rank 0      is met at node1:41985\n" in hpc_world(**TORCHRUN).stdout


def test_a_long_host_list_is_shortened() -> None:
    variables = {"SLURM_STEP_NODELIST": "n[1-9]", "SLURM_STEP_NUM_NODES": "9", "SLURM_STEP_TASKS_PER_NODE": "1(x9)"}
    own = {"SLURM_STEP_NUM_TASKS": "9", "SLURM_LOCALID": "0"}
    result = hpc_world(**{**captured("srun_direct.node1.0"), **variables, **own})
    assert "hosts       n1 n2 n3 n4 ... n9 (9)\n" in result.stdout


@pytest.mark.parametrize("environ", [{}, ENV, TORCHRUN, captured("salloc_shell.login1.x")])
def test_json_holds_the_whole_explanation(environ: dict[str, str]) -> None:
    printed = json.loads(hpc_world("--json", **environ).stdout)
    assert printed == json.loads(json.dumps(asdict(explain_world(environ))))


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_what_cannot_be_is_said_on_stderr_with_code_78(arguments: tuple[str, ...]) -> None:
    result = hpc_world(*arguments, RANK="1")
    assert (result.returncode, result.stdout) == (78, "")
    assert result.stderr.startswith("hpc: WORLD_SIZE, MASTER_ADDR and MASTER_PORT must be set where RANK is")


def saved(directory: Path, name: str, **environ: str) -> str:
    """An answer in a file."""
    path = directory / f"{name}.json"
    path.write_text(hpc_world("--json", **environ).stdout)
    return str(path)


COMPARISON = """\
            batch                    step
rank        0 of 1                   2 of 4
local rank  0 of 1                   0 of 2
node        0 of 1                   1 of 2
hosts       127.0.0.1                node1 node2
source      none                     slurm
job         lab.27.alone, attempt 0  lab.27.0, attempt 0
"""


def test_answers_are_compared_side_by_side(tmp_path: Path) -> None:
    files = [
        saved(tmp_path, "batch", **captured("batch_step.node1.0")),
        saved(tmp_path, "step", **captured("srun_in_batch.node2.2")),
    ]
    lines = hpc_world("--compare", *files).stdout.splitlines()
    assert lines[:7] == COMPARISON.splitlines()
    assert ["SLURM_STEP_NUM_TASKS", "-", "4"] in [line.split() for line in lines]
    assert lines[-1] == (
        "batch and step: different launchers, no launcher and a Slurm job step. SLURM_STEP_NUM_TASKS=4 decides in step;"
        " SLURM_STEP_NUM_TASKS is not set in batch."
    )


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ({}, {}, "each is a world of one, because neither sees a launcher."),
        (TORCHRUN, TORCHRUN, "the same rank of the same world, by torchrun."),
        (
            captured("mpich.node1.1"),
            captured("mpich.node2.2"),
            "two ranks of one world, 1 and 2 of 4; MPI_LOCALRANKID and PMI_RANK decide.",
        ),
        (
            captured("srun_in_batch.node1.0"),
            captured("srun_1_per_node.node1.0"),
            "two worlds of a Slurm job step, lab.27.0 and lab.27.2; SLURM_STEP_ID decides.",
        ),
        (
            captured("openmpi.node2.3"),
            {**captured("openmpi.node2.3"), **TORCHRUN},
            "different launchers, Open MPI's mpirun and torchrun. first believes OMPI_COMM_WORLD_SIZE=4, which second"
            " sees, too, but something comes before it there. TORCHELASTIC_RUN_ID=abc decides in second;"
            " TORCHELASTIC_RUN_ID is not set in first.",
        ),
        (
            captured("batch_step.node1.0"),
            {"HOSTNAME": "container"},
            "each is a world of one, because neither sees a launcher. None of the 9 launcher variables of first reach"
            " second: hand them on (`--env`, `--export=ALL`, `sudo --preserve-env`).",
        ),
    ],
)
def test_differences_are_explained(
    first: dict[str, str], second: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    files = saved(tmp_path, "first", **first), saved(tmp_path, "second", **second)
    assert hpc_world("--compare", *files).stdout.splitlines()[-1] == f"first and second: {sentence}"


def test_files_of_one_name_are_told_apart_by_their_directories(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files = saved(tmp_path, "same"), saved(tmp_path / "other", "same")
    assert hpc_world("--compare", *files).stdout.splitlines()[-1].startswith(f"{files[0]} and {files[1]}: ")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"world": {"rank": 0}, "variables": {}}', None])
def test_a_file_without_an_answer_is_refused(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_text(content)
    result = hpc_world("--compare", saved(tmp_path, "whole"), str(path))
    assert (result.returncode, result.stdout) == (78, "")
    assert result.stderr.startswith(f"hpc: {path} must hold what `hpc world --json` printed, but")


@pytest.mark.parametrize("arguments", [("--compare",), ("--compare", "one.json"), ("one.json", "two.json")])
def test_files_and_compare_need_each_other(arguments: tuple[str, ...]) -> None:
    result = hpc_world(*arguments)
    assert result.returncode == 2
    assert "--compare needs two or more files, and files need --compare." in result.stderr


def test_the_configuration_switches_detection_off(run_py: Run, tmp_path: Path) -> None:
    half_set = {"RANK": "1"}
    train = (
        "experiment.target=tests.programs.jobs.train",
        "runtime.device=cpu",
        "steps=2",
        "+job={}",
        f"run_dir={tmp_path}/run",
    )
    assert run_py(*train, environ=half_set).returncode == 78
    assert run_py(*train, "runtime.launcher=none", environ=half_set).returncode == 0


def test_the_configuration_s_launcher_must_be_there(run_py: Run, tmp_path: Path) -> None:
    train = ("experiment.target=tests.programs.jobs.train", "steps=2", "+job={}", f"run_dir={tmp_path}/run")
    result = run_py(*train, "runtime.launcher=openmpi", environ={"HPC_LAUNCHER": "none"})
    assert result.returncode == 78
    assert "runtime.launcher=openmpi asks for Open MPI's mpirun, but OMPI_COMM_WORLD_SIZE is not set" in result.stderr
