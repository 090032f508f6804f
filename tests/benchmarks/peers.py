"""Who knows which rank it is? Every peer is asked, under every launch, on a real Slurm; the answers become a table.

    python -m tests.benchmarks.peers [DIRECTORY] [LAUNCH ...]

The peers are installed into a virtual environment in DIRECTORY, or in one that is removed at the end. It sees this
interpreter's packages and adds to them; nothing is added to the project's own environment.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.testing.cluster import ClusterOptions, SlurmCluster
from tests.benchmarks.peer_answers import PARTS, PEERS
from tests.benchmarks.peer_environment import install_peers
from tests.conftest import ROOT, clean_environment

ASKER = Path(__file__).parent / "peer_answers.py"
LAUNCH_SECONDS = 240

Truth = tuple[int, int, int, int, str | None]
"""Rank, world size, local rank, local world size, rank 0's host; None where all are on one: any address will do."""


@dataclass(frozen=True)
class Launch:
    """One way to start a program, and what is true then.

    Args:
        key: A letter, as in tables of such launches.
        title: What a person types.
        truth: For each process, by the label that the launch gives it.
        script: Of the batch job; {ask} is the program, which takes its label as the next word.
        options: Of sbatch.
        shape: Nodes, and tasks on each, as the user would tell a library that wants to be told.
        command: Instead of a batch job: what is typed on the login node, before the program.
    """

    key: str
    title: str
    truth: tuple[Truth, ...]
    script: str = ""
    options: tuple[str, ...] = ()
    shape: tuple[int, int] = (2, 2)
    command: str = ""


ALONE: tuple[Truth, ...] = ((0, 1, 0, 1, None),)
TWO_BY_TWO: tuple[Truth, ...] = tuple((rank, 4, rank % 2, 2, "node1") for rank in range(4))
TWO_BY_ONE: tuple[Truth, ...] = ((0, 2, 0, 1, "node1"), (1, 2, 0, 1, "node1"))
ONE_BY_TWO: tuple[Truth, ...] = ((0, 2, 0, 2, None), (1, 2, 1, 2, None))
ASK = """sh -c '{ask} "$SLURM_PROCID"'"""
RANKED = """sh -c '{ask} "$RANK"'"""
TORCHRUN = "{python} -m torch.distributed.run --nproc-per-node="
NO_PYTHON = f"--no-python {RANKED}"
EVEN = ("--nodes=2", "--ntasks-per-node=2")
OPENMPI = "mpirun.openmpi --allow-run-as-root"
OPENMPI_RANKED = """sh -c '{ask} "$OMPI_COMM_WORLD_RANK"'"""
MPICH_RANKED = """sh -c '{ask} "$PMI_RANK"'"""

LAUNCHES = (
    Launch("A", "sbatch -N2 -n4, no srun", ALONE, "{ask} 0", ("--nodes=2", "--ntasks=4")),
    Launch("A2", "sbatch --ntasks-per-node=2, no srun", ALONE, "{ask} 0", EVEN),
    Launch(
        "B",
        "srun -r1 -N1 -n2: a step on the second node",
        ((0, 2, 0, 2, "node2"), (1, 2, 1, 2, "node2")),
        f"srun --relative=1 --nodes=1 --ntasks=2 {ASK}",
        EVEN,
        (1, 2),
    ),
    Launch(
        "C",
        "srun -m arbitrary -w node2,node1",
        ((0, 2, 0, 1, "node2"), (1, 2, 0, 1, "node2")),
        f"srun --distribution=arbitrary --nodelist=node2,node1 --ntasks=2 {ASK}",
        ("--nodes=2", "--ntasks-per-node=1"),
        (2, 1),
    ),
    Launch(
        "D",
        "srun torchrun, two nodes of one",
        TWO_BY_ONE,
        f"srun {TORCHRUN}1 --nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=node1:29400 {NO_PYTHON}",
        ("--nodes=2", "--ntasks-per-node=1"),
        (2, 1),
    ),
    Launch(
        "E", "srun -n1 torchrun, one node of two", ONE_BY_TWO, f"srun {TORCHRUN}2 {NO_PYTHON}", ("--ntasks=1",), (1, 2)
    ),
    Launch("F", "torchrun in a batch script of four tasks", ONE_BY_TWO, f"{TORCHRUN}2 {NO_PYTHON}", EVEN, (1, 2)),
    Launch(
        "G",
        "srun -n4 on two nodes, uneven 3,1",
        (*((rank, 4, rank, 3, "node1") for rank in range(3)), (3, 4, 0, 1, "node1")),
        f"srun {ASK}",
        ("--nodes=2", "--ntasks=4"),
    ),
    Launch("H", "srun in a job named bash", TWO_BY_TWO, f"srun {ASK}", (*EVEN, "--job-name=bash")),
    Launch(
        "I",
        "salloc with use_interactive_step",
        ALONE,
        command=f"salloc {' '.join(EVEN)} srun --interactive --preserve-env --nodes=1 --ntasks=1",
    ),
    Launch("J", "salloc, on the login node", ALONE, command=f"salloc {' '.join(EVEN)} --job-name=dev"),
    Launch("K", "srun, two nodes of two", TWO_BY_TWO, f"srun {ASK}", EVEN),
    Launch(
        "L",
        "srun -m cyclic, two nodes of two",
        tuple((rank, 4, rank // 2, 2, "node1") for rank in range(4)),
        f"srun --distribution=cyclic {ASK}",
        EVEN,
    ),
    Launch("M", "srun --mpi=pmi2", TWO_BY_TWO, f"srun --mpi=pmi2 {ASK}", EVEN),
    Launch(
        "N",
        "srun in a one-task step (nested)",
        ONE_BY_TWO,
        f"srun --ntasks=1 --nodes=1 --mem=0 srun --overlap --mem=0 --nodes=1 --ntasks=2 {ASK}",
        ("--nodes=1", "--ntasks=2"),
        (1, 2),
    ),
    Launch("O", "srun --gpus-per-task=1", TWO_BY_TWO, f"srun --gpus-per-task=1 {ASK}", (*EVEN, "--gpus-per-task=1")),
    Launch(
        "O2",
        "srun --gpus-per-task=1 --gpu-bind=none",
        TWO_BY_TWO,
        f"srun --gpus-per-task=1 --gpu-bind=none {ASK}",
        (*EVEN, "--gpus-per-task=1"),
    ),
    Launch(
        "P",
        "two components of a heterogeneous job, one step",
        (*((rank, 3, rank, 2, "node1") for rank in range(2)), (2, 3, 0, 1, "node1")),
        f"srun --het-group=0,1 {ASK}",
        ("--nodes=1", "--ntasks=2", ":", "--nodes=1", "--ntasks=1"),
    ),
    Launch("Q", "srun in an array task", TWO_BY_TWO, f"srun {ASK}", (*EVEN, "--array=3")),
    Launch(
        "R",
        "two steps at once in one job",
        (*TWO_BY_ONE, *TWO_BY_ONE),
        "\n".join(
            f"srun --nodes=2 --ntasks=2 --exact --mem=100 sh -c '{{ask}} $((SLURM_PROCID + {first}))' &"
            for first in (0, 2)
        )
        + "\nwait",
        (*EVEN, "--mem=500"),
        (2, 1),
    ),
    Launch("S", "mpirun of Open MPI, in a batch script", TWO_BY_TWO, f"{OPENMPI} -n 4 {OPENMPI_RANKED}", EVEN),
    Launch("T", "mpiexec of MPICH, in a batch script", TWO_BY_TWO, f"mpiexec.hydra -n 4 {MPICH_RANKED}", EVEN),
    Launch(
        "U",
        "mpirun of Open MPI, no Slurm",
        ONE_BY_TWO,
        shape=(1, 2),
        command=f"""{OPENMPI} --oversubscribe -n 2 sh -c '"$0" "$OMPI_COMM_WORLD_RANK"'""",
    ),
    Launch(
        "V",
        "mpiexec of MPICH, no Slurm",
        ONE_BY_TWO,
        shape=(1, 2),
        command="""mpiexec.hydra -n 2 sh -c '"$0" "$PMI_RANK"'""",
    ),
    Launch(
        "W",
        "torchrun, no Slurm",
        ONE_BY_TWO,
        shape=(1, 2),
        command=f"""{TORCHRUN}2 --no-python sh -c '"$0" "$RANK"'""".format(python=sys.executable),
    ),
)


def main() -> None:
    """Install what is missing, start a cluster, launch, ask, and print the table."""
    directory, *keys = sys.argv[1:] or [""]
    with tempfile.TemporaryDirectory(prefix="hpc") as temporary:
        python = install_peers(Path(directory or temporary) / "peers")
        wanted = [launch for launch in LAUNCHES if not keys or launch.key in keys]
        with SlurmCluster(Path(temporary) / "cluster", ClusterOptions(nodes=2, accounting=False)) as cluster:
            rows = []
            for launch in wanted:
                rows.append((launch, ask(cluster, launch, python, Path(temporary) / launch.key)))
                print(render(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(render(rows))


def ask(cluster: SlurmCluster, launch: Launch, python: Path, directory: Path) -> list[dict[str, Any]]:
    """What each process of a launch was told by each peer, by label; {} for one that said nothing."""
    directory.mkdir(parents=True)
    asker = write_asker(launch, python, directory)
    script = directory / "batch"
    script.write_text("#!/bin/sh\n" + launch.script.replace("{ask}", asker).replace("{python}", str(python)) + "\n")
    batch = ("sbatch", "--wait", f"--output={directory}/log", *launch.options, str(script))
    command = (*shlex.split(launch.command), asker, "0") if launch.command else batch
    environ = {**clean_environment(), "PYTHONPATH": str(ROOT), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    cluster.run(*command, env=environ, check=False, timeout=LAUNCH_SECONDS)
    files = [directory / str(label) for label in range(len(launch.truth))]
    return [json.loads(file.read_text())["answers"] if file.exists() else {} for file in files]


def write_asker(launch: Launch, python: Path, directory: Path) -> str:
    """A command to which a label is added as one more word; without quotes, so that it may stand within some."""
    asker = directory / "ask"
    nodes, tasks = launch.shape
    asker.write_text(f'#!/bin/sh\nexec {python} {ASKER} "{directory}/$1" {nodes} {tasks}\n')
    asker.chmod(0o755)
    return str(asker)


def render(rows: list[tuple[Launch, list[dict[str, Any]]]]) -> str:
    """A table in Markdown; what is wrong is bold."""
    lines = ["| | launch | truth | " + " | ".join(PEERS) + " |", "|---" * (3 + len(PEERS)) + "|"]
    for launch, answers in rows:
        cells = [judge(launch.truth, [answer.get(peer, {}) for answer in answers]) for peer in PEERS]
        lines.append(f"| {launch.key} | {launch.title} | {_describe(launch.truth)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def judge(truth: tuple[Truth, ...], answers: list[dict[str, Any]]) -> str:
    """`ok`, or everything that is wrong, once, in the order of the ranks."""
    mistakes = [mistake for told, true in zip(answers, truth, strict=True) for mistake in _mistakes(told, true)]
    return f"**{', '.join(dict.fromkeys(mistakes))}**" if mistakes else "ok"


def _mistakes(told: dict[str, Any], true: Truth) -> list[str]:
    """What a peer does not say is no mistake; nor is any address of a process that is alone."""
    if not told:
        return ["no answer"]
    if "error" in told:
        return [str(told["error"])]
    known = dict(zip(PARTS, true, strict=True))
    wrong = {
        part for part in PARTS if told.get(part) is not None and known[part] is not None and told[part] != known[part]
    }
    found = [f"rank {told['rank']}/{told['world_size']}"] if wrong & {"rank", "world_size"} else []
    names = {"local_rank": "local rank", "local_world_size": "local world size", "master": "master"}
    return [*found, *(f"{name} {told[part]}" for part, name in names.items() if part in wrong)]


def _describe(truth: tuple[Truth, ...]) -> str:
    """The world, how its ranks are dealt to nodes, and where rank 0 is."""
    _, size, _, _, master = truth[0]
    if size == 1:
        return "1 alone"
    where = f", rank 0 on {master}" if master else ""
    return f"{size} ranks, local {' '.join(str(local) for _, _, local, _, _ in truth)}{where}"


if __name__ == "__main__":
    main()
