from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from hpc.world import explain_world
from tests.conftest import ROOT, clean_environment
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
    assert result.stderr.startswith("WORLD_SIZE, MASTER_ADDR and MASTER_PORT must be set where RANK is")
