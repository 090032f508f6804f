"""Which rank does `hpc world` answer under every launcher that runs here, on a real Slurm?"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpc.testing.cluster import SlurmCluster
from tests.conftest import clean_environment

pytestmark = pytest.mark.slurm

WORLD = "./answer"
PROGRAM = """#!/bin/sh
env >"$$.env"
exec {python} -m hpc world --json >"$$.json"
"""
"""Each process writes a file of its own, because lines of several may mix on one output."""
ONE, TWO, SECOND = ("node1",), ("node1", "node2"), ("node2",)
TORCHRUN = f"{shlex.quote(sys.executable)} -m torch.distributed.run --no-python"
INTERACTIVE = "srun --interactive --preserve-env --nodes=1 --ntasks=1 --nodelist=node1"
"""What salloc runs with LaunchParameters=use_interactive_step (Slurm 20.11 and later)."""

Answer = dict[str, Any]


def answers_in(directory: Path) -> list[Answer]:
    """Every answer that was written there, by rank."""
    answers = [json.loads(path.read_text()) for path in directory.glob("*.json")]
    return sorted(answers, key=lambda answer: int(answer["world"]["rank"]))


def worlds(answers: Sequence[Answer]) -> list[tuple[int, int, int, int, int]]:
    """Rank, world size, local rank, local world size and node rank."""
    names = ("rank", "world_size", "local_rank", "local_world_size", "node_rank")
    return [tuple(answer["world"][name] for name in names) for answer in answers]


@dataclass(frozen=True)
class Launch:
    """One way to start four, or fewer, processes.

    Args:
        options: Of sbatch.
        script: What the batch script runs.
        source: Who must be believed.
        worlds: Rank, world size, local rank, local world size and node rank of every process.
        hosts: The nodes.
        warnings: How the only warning begins, or "".
    """

    options: str
    script: str
    source: str
    worlds: tuple[tuple[int, int, int, int, int], ...]
    hosts: tuple[str, ...] = TWO
    warnings: str = ""


ALONE = ((0, 1, 0, 1, 0),)
EVEN = ((0, 4, 0, 2, 0), (1, 4, 1, 2, 0), (2, 4, 0, 2, 1), (3, 4, 1, 2, 1))
UNEVEN = ((0, 4, 0, 3, 0), (1, 4, 1, 3, 0), (2, 4, 2, 3, 0), (3, 4, 0, 1, 1))
CYCLIC = ((0, 4, 0, 2, 0), (1, 4, 0, 2, 1), (2, 4, 1, 2, 0), (3, 4, 1, 2, 1))
PAIR = ((0, 2, 0, 2, 0), (1, 2, 1, 2, 0))
SPREAD = ((0, 2, 0, 1, 0), (1, 2, 0, 1, 1))
LOOPBACK = ("127.0.0.1",)
FOUR = "This allocation has 4 tasks and this process is one alone: prefix the command with `srun`."
SMALL = "--mem-per-cpu=100"
HYDRA = "mpiexec.hydra -launcher slurm"
ORTE = "mpirun.openmpi --allow-run-as-root --mca plm slurm"

LAUNCHES = {
    "a batch script": Launch("-N2 -n4", WORLD, "none", ALONE, LOOPBACK, FOUR),
    "a batch script with tasks per node": Launch("-N2 --ntasks-per-node=2", WORLD, "none", ALONE, LOOPBACK, FOUR),
    "a batch script without a task count": Launch("-N2", WORLD, "none", ALONE, LOOPBACK, "This allocation has 2 tasks"),
    "a step": Launch("-N2 --ntasks-per-node=2", f"srun {WORLD}", "slurm", EVEN),
    "an uneven step": Launch("-N2 -n4", f"srun {WORLD}", "slurm", UNEVEN),
    "an uneven step that asks for two on each node": Launch(
        "-N2 -n4", f"srun --ntasks-per-node=2 {WORLD}", "slurm", UNEVEN
    ),
    "a step on the second node": Launch("-N2 --ntasks-per-node=2", f"srun -N1 -n2 -r1 {WORLD}", "slurm", PAIR, SECOND),
    "a cyclic step": Launch("-N2 --ntasks-per-node=2", f"srun -m cyclic {WORLD}", "slurm", CYCLIC),
    "a step that is placed by hand": Launch(
        "-N2 -n2", f"srun -n2 -m arbitrary -w node2,node1 {WORLD}", "slurm", ((0, 2, 0, 1, 1), (1, 2, 0, 1, 0))
    ),
    "a job named bash": Launch("-N2 --ntasks-per-node=2 -J bash", f"srun {WORLD}", "slurm", EVEN),
    "a pseudo terminal": Launch("-N2 -n4", f"srun -N1 -n1 --pty {WORLD}", "slurm", ALONE, ONE),
    "a nested step": Launch(
        "-N2 --ntasks-per-node=2",
        f"srun -N1 -n1 --mem=0 srun --overlap --mem=0 -N2 -n4 --ntasks-per-node=2 {WORLD}",
        "slurm",
        EVEN,
    ),
    "GPUs by task": Launch("-N2 -n4 --gpus-per-task=1", f"srun {WORLD}", "slurm", UNEVEN),
    "GPUs by task, unbound": Launch("-N2 -n4 --gpus-per-task=1", f"srun --gpu-bind=none {WORLD}", "slurm", UNEVEN),
    "PMI-2": Launch("-N2 -n4", f"srun --mpi=pmi2 {WORLD}", "slurm", UNEVEN),
    "PMIx": Launch("-N1 -n2", f"srun --mpi=pmix {WORLD}", "slurm", PAIR, ONE),
    "Cray's PMI": Launch("-N2 -n4", f"srun --mpi=cray_shasta {WORLD}", "slurm", UNEVEN),
    "a step of PMI-2 in a step of PMI-2": Launch(
        "-N2 --ntasks-per-node=2",
        f"srun -N1 -n1 --mem=0 --mpi=pmi2 srun --mpi=none --overlap --mem=0 -N2 -n4 --ntasks-per-node=2 {WORLD}",
        *("slurm", EVEN),
    ),
    "a container hook": Launch(
        "-N2 -n4",
        "export MASTER_ADDR=node1 MASTER_PORT=29500; srun sh -c"
        f" 'RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID exec {WORLD}'",
        *("env", UNEVEN, ONE),
    ),
    "Open MPI": Launch("-N2 --ntasks-per-node=2", f"{ORTE} -n 4 {WORLD}", "openmpi", EVEN),
    "Open MPI by node": Launch("-N2 --ntasks-per-node=2", f"{ORTE} -n 4 --map-by node {WORLD}", "openmpi", CYCLIC),
    "uneven Open MPI": Launch("-N2 -n4", f"{ORTE} -n 4 {WORLD}", "openmpi", UNEVEN),
    "MPICH": Launch("-N2 --ntasks-per-node=2", f"{HYDRA} -n 4 {WORLD}", "mpich", EVEN),
    "uneven MPICH": Launch("-N2 -n4", f"{HYDRA} -n 4 {WORLD}", "mpich", UNEVEN),
    "MPICH with one rank on each node": Launch("-N2 -n2", f"{HYDRA} -n 2 {WORLD}", "mpich", SPREAD),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the program that answers."""
    program = tmp_path / "answer"
    program.write_text(PROGRAM.format(python=shlex.quote(sys.executable)))
    program.chmod(0o755)
    return tmp_path


def submit(cluster: SlurmCluster, place: Path, environ: dict[str, str], options: str, script: str) -> list[Answer]:
    """What the processes of a batch job answered."""
    done = cluster.run(
        *("sbatch", "--parsable", "--wait", *shlex.split(options), f"--output={place}/log-%j", f"--wrap={script}"),
        cwd=place, check=False, timeout=300, env=environ,
    )  # fmt: skip
    log = "\n".join(path.read_text() for path in sorted(place.glob("log-*")))
    assert done.returncode == 0, f"{done.stderr}\n{log}"
    return answers_in(place)


def sources(answers: Sequence[Answer]) -> set[str]:
    """Who was believed."""
    return {answer["world"]["source"] for answer in answers}


@pytest.mark.parametrize("launch", LAUNCHES.values(), ids=LAUNCHES)
def test_every_process_knows_its_rank(
    launch: Launch, cluster: SlurmCluster, place: Path, environ: dict[str, str]
) -> None:
    answers = submit(cluster, place, environ, f"{SMALL} {launch.options}", launch.script)
    assert sources(answers) == {launch.source}
    assert tuple(worlds(answers)) == launch.worlds
    assert {tuple(answer["world"]["hosts"]) for answer in answers} == {launch.hosts}
    assert len({answer["world"]["job"] for answer in answers}) == 1
    assert [warning.startswith(launch.warnings) for warning in answers[0]["warnings"]] == [True] * bool(launch.warnings)


def test_tasks_per_node_is_what_was_asked_for_and_not_what_came(
    cluster: SlurmCluster, place: Path, environ: dict[str, str]
) -> None:
    submit(cluster, place, environ, f"{SMALL} -N2 -n4", f"srun --ntasks-per-node=2 {WORLD}")
    text = [path.read_text() for path in place.glob("*.env")]
    assert all("SLURM_NTASKS_PER_NODE=2\n" in each and "SLURM_STEP_TASKS_PER_NODE=3,1\n" in each for each in text)


@pytest.mark.parametrize(
    ("command", "source", "expected", "warned"),
    [
        (WORLD, "none", ALONE, True),
        (f"{INTERACTIVE} {WORLD}", "none", ALONE, True),
        (f"{INTERACTIVE} srun {WORLD}", "slurm", EVEN, False),
        (f"srun {WORLD}", "slurm", EVEN, False),
    ],
)
def test_a_shell_of_salloc_is_alone_and_its_steps_are_not(
    command: str, source: str, expected: object, warned: bool,
    cluster: SlurmCluster, place: Path, environ: dict[str, str],
) -> None:  # fmt: skip
    options = ("-J", "dev", "-N2", "--ntasks-per-node=2", "--mem-per-cpu=100")
    cluster.run("salloc", *options, *shlex.split(command), cwd=place, timeout=200, env=environ)
    answers = answers_in(place)
    assert (sources(answers), tuple(worlds(answers))) == ({source}, expected)
    assert answers[0]["warnings"] == ([FOUR] if warned else [])


@pytest.mark.parametrize(("srun", "size", "warned"), [("srun --het-group=0-1", 4, False), ("srun", 1, True)])
def test_components_of_a_heterogeneous_job_are_one_world_when_they_share_a_step(
    srun: str, size: int, warned: bool, cluster: SlurmCluster, place: Path, environ: dict[str, str]
) -> None:
    options = f"-N1 -n1 {SMALL} : -N2 -n3 {SMALL}"
    script = place / "script"
    script.write_text(f"#!/bin/sh\n{srun} {WORLD}\n")
    words = ["sbatch", "--wait", f"--output={place}/log", *shlex.split(options), str(script)]
    cluster.run(*words, cwd=place, timeout=200, env=environ)
    answers = answers_in(place)
    assert (len(answers), {answer["world"]["world_size"] for answer in answers}) == (size, {size})
    assert len({answer["world"]["job"] for answer in answers}) == 1
    starts = [answer["warnings"][0][:42] for answer in answers if answer["warnings"]]
    assert starts == (["This step has no task on component 1 of th"] if warned else [])


def test_a_batch_script_of_a_heterogeneous_job_is_told_how_to_start_all_of_it(
    cluster: SlurmCluster, place: Path, environ: dict[str, str]
) -> None:
    words = ["sbatch", "--wait", f"--output={place}/log", *shlex.split(f"-n1 {SMALL} : -N2 -n3 {SMALL}")]
    cluster.run(*words, str(place / "answer"), cwd=place, timeout=200, env=environ)
    (warning,) = answers_in(place)[0]["warnings"]
    assert warning.endswith("prefix the command with `srun --het-group=0-1`.")


def test_tasks_of_an_array_are_worlds_of_their_own(cluster: SlurmCluster, place: Path, environ: dict[str, str]) -> None:
    answers = submit(cluster, place, environ, f"{SMALL} --array=0-2 -n2", f"srun {WORLD}")
    assert len(answers) == 6
    assert len({answer["world"]["job"] for answer in answers}) == 3


def test_steps_side_by_side_are_worlds_of_their_own(
    cluster: SlurmCluster, place: Path, environ: dict[str, str]
) -> None:
    step = f"srun -N2 -n2 --exact --mem=100 {WORLD} &"
    answers = submit(cluster, place, environ, "-N2 --ntasks-per-node=2 --mem=500", f"{step}\n{step}\nwait")
    assert worlds(answers) == sorted([*SPREAD, *SPREAD])
    jobs = {answer["world"]["job"] for answer in answers}
    assert len({job.rsplit(".", 1)[0] for job in jobs}) == 1
    assert len(jobs) == 2


@pytest.mark.parametrize(
    ("command", "source"),
    [
        (f"mpirun.openmpi --allow-run-as-root --oversubscribe -n 2 {WORLD}", "openmpi"),
        (f"mpiexec.hydra -n 2 {WORLD}", "mpich"),
        (f"{TORCHRUN} --standalone --nproc-per-node=2 {WORLD}", "torchrun"),
    ],
)
def test_two_ranks_on_this_machine(command: str, source: str, place: Path) -> None:
    subprocess.run(shlex.split(command), cwd=place, env=clean_environment(), timeout=300, check=True)
    answers = answers_in(place)
    assert (sources(answers), tuple(worlds(answers))) == ({source}, PAIR)
    assert {answer["world"]["node_count"] for answer in answers} == {1}


RENDEZVOUS = "--rdzv-backend=c10d --rdzv-endpoint=node1:29517 --rdzv-id=$SLURM_JOB_ID"


@pytest.mark.parametrize(
    ("options", "script", "expected"),
    [
        ("-n1", f"srun {TORCHRUN} --standalone --nproc-per-node=2 {WORLD}", PAIR),
        ("-N2 -n4", f"{TORCHRUN} --standalone --nproc-per-node=2 {WORLD}", PAIR),
        ("-n2", f"srun {TORCHRUN} --nnodes=2 {RENDEZVOUS} {WORLD}", SPREAD),
        ("-N2 --ntasks-per-node=1", f"srun {TORCHRUN} --nnodes=2 --nproc-per-node=2 {RENDEZVOUS} {WORLD}", EVEN),
    ],
    ids=["in a task", "in a batch script", "in every task", "on every node"],
)
def test_torchrun_is_believed_inside_slurm(
    options: str, script: str, expected: object, cluster: SlurmCluster, place: Path, environ: dict[str, str]
) -> None:
    answers = submit(cluster, place, environ, f"{SMALL} {options}", script)
    assert (sources(answers), tuple(worlds(answers))) == ({"torchrun"}, expected)
    assert len({tuple(answer["world"]["master"]) for answer in answers}) == 1


COMPARED = """
python -m hpc world --json >batch.json
srun sh -c 'python -m hpc world --json >step.$SLURM_PROCID.json'
srun -n1 env -i PATH="$PATH" PYTHONPATH="$PYTHONPATH" python -m hpc world --json >container.json
"""


def test_answers_of_the_batch_script_a_step_and_a_container_are_explained(
    cluster: SlurmCluster, place: Path, environ: dict[str, str]
) -> None:
    submit(cluster, place, environ, f"{SMALL} -N2 --ntasks-per-node=2", COMPARED)
    files = [str(place / name) for name in ("batch.json", "step.0.json", "step.3.json", "container.json")]
    done = cluster.run(sys.executable, "-m", "hpc", "world", "--compare", *files[:2], files[3], cwd=place, env=environ)
    batch, container = done.stdout.splitlines()[-3::2]
    assert batch == (
        "batch and step.0: different launchers, no launcher and a Slurm job step. SLURM_STEP_NUM_TASKS=4 decides in"
        " step.0; SLURM_STEP_NUM_TASKS is not set in batch."
    )
    assert container.startswith("batch and container: each is a world of one, because neither sees a launcher. None of")
    done = cluster.run(sys.executable, "-m", "hpc", "world", "--compare", *files[1:], cwd=place, env=environ)
    ranks, container = done.stdout.splitlines()[-3::2]
    assert ranks.startswith("step.0 and step.3: two ranks of one world, 0 and 3 of 4; SLURM_PROCID, SLURM_LOCALID")
    assert container.endswith("hand them on (`--env`, `--export=ALL`, `sudo --preserve-env`).")
