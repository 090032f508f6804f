"""Ranks on several nodes find each other. No node has reverse DNS; no shared file helps: files only carry results."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hpc.testing.cluster import SlurmCluster
from hpc.testing.network import ip
from tests.conftest import ROOT, clean_environment

pytestmark = pytest.mark.slurm

PROGRAM = ROOT / "tests" / "programs" / "meeting.py"
SMALL = ("--nodes=2", "--ntasks=2", "--mem=1G", "--time=5")
FABRIC = "10.78.0"
VETH = ("link", "add", "ib0", "type", "veth", "peer", "name", "hsn0", "netns")


@pytest.fixture
def environ() -> dict[str, str]:
    """Of a person on the login node."""
    return {**clean_environment(), "PYTHONPATH": str(ROOT), "TORCH_CPP_LOG_LEVEL": "ERROR"}


@pytest.fixture
def meeting(tmp_path: Path) -> Callable[..., str]:
    """The command line of one rank."""

    def command(*mode: str, **options: Any) -> str:
        settings = json.dumps({"timeout_seconds": 60, **options})
        return shlex.join([sys.executable, str(PROGRAM), str(tmp_path), settings, *mode])

    return command


def seen(directory: Path, job: str = "", attempt: int = 0) -> list[dict[str, Any]]:
    """What the ranks of a job's life wrote down, by rank."""
    found = [json.loads(path.read_text()) for path in directory.glob(f"*{job}.{attempt}.*.json")]
    return sorted(found, key=lambda each: int(each["rank"]))


def batch(cluster: SlurmCluster, environ: dict[str, str], *options: str, script: str) -> str:
    """Submit a script for two small tasks on two nodes; returns the job's id."""
    output = ("--output=/dev/null", "--error=errors.%j")
    return cluster.run("sbatch", "--parsable", *SMALL, *output, *options, "--wrap", script, env=environ).stdout.strip()


def assert_met(ranks: list[dict[str, Any]], size: int) -> None:
    """Every rank came, and heard every rank of its own world and nobody else."""
    assert [rank.get("error") for rank in ranks] == [None] * size
    assert len({tuple(rank["greetings"]) for rank in ranks}) == 1
    assert [int(greeting.split()[2]) for greeting in ranks[0]["greetings"]] == list(range(size))
    assert len({greeting.rsplit(maxsplit=1)[0] for greeting in ranks[0]["greetings"]}) == 1


def test_two_steps_of_one_job_at_once_on_the_same_nodes_meet_apart(
    cluster: SlurmCluster, tmp_path: Path, environ: dict[str, str], meeting: Callable[..., str]
) -> None:
    step = f"srun --overlap {meeting()} &"
    job = batch(cluster, environ, script=f"{step} {step} wait")
    cluster.wait_for(job, "COMPLETED", timeout_seconds=90)
    for number in (0, 1):
        assert_met(seen(tmp_path, f".{job}.{number}"), 2)


def test_array_neighbours_on_the_same_nodes_meet_apart(
    cluster: SlurmCluster, tmp_path: Path, environ: dict[str, str], meeting: Callable[..., str]
) -> None:
    job = batch(cluster, environ, "--array=0-1", "--nodelist=node1,node2", script=f"srun {meeting()}")
    cluster.wait_for(job, "COMPLETED", timeout_seconds=90)
    jobs = {path.name.split(".")[1] for path in tmp_path.glob("*.json")}
    assert len(jobs) == 2
    for each in jobs:
        assert_met(seen(tmp_path, f".{each}.0"), 2)


def test_a_predecessor_whose_beacon_still_burns_is_not_joined(
    cluster: SlurmCluster, tmp_path: Path, environ: dict[str, str], meeting: Callable[..., str]
) -> None:
    job = batch(cluster, environ, "--requeue", "--nodelist=node1,node2", script=f"srun {meeting('linger')}")
    lingering = tmp_path / "lingering"
    deadline = time.monotonic() + 60
    while not (lingering.exists() and lingering.read_text()):
        assert time.monotonic() < deadline, cluster.jobs(job)
        time.sleep(0.1)
    pid = int(lingering.read_text())
    try:
        cluster.run("scontrol", "requeue", job)
        cluster.wait_for(job, "COMPLETED", timeout_seconds=90)
        assert_met(seen(tmp_path, f".{job}.0", attempt=1), 2)
        assert pid in [process.pid for process in cluster.processes_on("node1")]
    finally:
        os.kill(pid, signal.SIGKILL)


def test_rank_zero_is_found_wherever_it_was_placed(
    cluster: SlurmCluster, tmp_path: Path, environ: dict[str, str], meeting: Callable[..., str]
) -> None:
    place = ("--distribution=arbitrary", "--nodelist=node2,node1")
    cluster.run("srun", *SMALL, *place, *shlex.split(meeting()), timeout=300, env=environ)
    ranks = seen(tmp_path)
    assert_met(ranks, 2)
    assert [rank["host"] for rank in ranks] == ["node2", "node1"]
    assert ranks[0]["hosts"] == ["node1", "node2"]  # what the step's list says


def test_a_rank_that_never_comes_is_named_by_all_that_did(
    cluster: SlurmCluster, tmp_path: Path, environ: dict[str, str], meeting: Callable[..., str]
) -> None:
    command = shlex.split(meeting("absent", "2", timeout_seconds=8))
    cluster.run("srun", "--nodes=2", "--ntasks=3", "--mem=1G", *command, timeout=300, env=environ)
    ranks = seen(tmp_path)
    assert [rank["rank"] for rank in ranks] == [0, 1]
    for rank in ranks:
        assert "All 3 ranks must come within runtime.rendezvous_timeout_seconds, but 1 did not" in rank["error"]
        assert rank["error"].endswith("see the output of rank 2.")


@pytest.fixture
def fabric(cluster: SlurmCluster) -> Iterator[None]:
    """A second network between node1 and node2, whose interfaces and host names differ from the first's."""
    names = (("node1", "ib0", f"{FABRIC}.1"), ("node2", "hsn0", f"{FABRIC}.2"))
    spaces = {node: f"{cluster.name}-{node}" for node, _, _ in names}
    hosts = cluster.directory / "etc" / "hosts"
    before = hosts.read_text()
    with ExitStack() as undo:
        ip("-n", spaces["node1"], *VETH, spaces["node2"])
        undo.callback(ip, "-n", spaces["node1"], "link", "delete", "ib0")
        for node, interface, address in names:
            ip("-n", spaces[node], "address", "add", f"{address}/24", "dev", interface)
            ip("-n", spaces[node], "link", "set", interface, "up")
        undo.callback(hosts.write_text, before)
        hosts.write_text(before + "".join(f"{address} {node}i\n" for node, _, address in names))
        yield


@pytest.mark.usefixtures("fabric")
@pytest.mark.parametrize(
    ("options", "through"),
    [
        pytest.param({}, "10.77.", id="none"),
        pytest.param({"interface": "ib0"}, f"{FABRIC}.1", id="by name"),
        pytest.param({"interface": f"{FABRIC}.0/24"}, f"{FABRIC}.1", id="by network"),
        pytest.param({"host_suffix": "i"}, f"{FABRIC}.1", id="by host suffix"),
    ],
)
def test_the_network_asked_for_is_the_one_the_ranks_meet_on(
    cluster: SlurmCluster,
    tmp_path: Path,
    environ: dict[str, str],
    meeting: Callable[..., str],
    options: dict[str, str],
    through: str,
) -> None:
    command = shlex.split(meeting(**options))
    cluster.run("srun", *SMALL, "--nodelist=node1,node2", *command, timeout=300, env=environ)
    ranks = seen(tmp_path)
    assert_met(ranks, 2)
    assert len(ranks[1]["peers"]) == 1
    assert ranks[1]["peers"][0].startswith(through)


DEBIAN_HOSTS = (
    'export PET_NODE_RANK="$SLURM_NODEID"; own=$(mktemp)'
    ' && sed "s/^[0-9.]* $(hostname)$/127.0.1.1 $(hostname)/" /etc/hosts >"$own"'
    ' && mount --bind "$own" /etc/hosts && rm "$own" && exec "$@"'
)
"""Shell in whose mount namespace the own host name is a loopback address, as Debian's installer writes /etc/hosts.

torchrun takes its node's rank from PET_NODE_RANK."""

TRAIN = """
import os, sys, pathlib
import torch
from hpc.config import RuntimeOptions
from hpc.connect.process_group import open_process_group
from hpc.attempt.attempt import process_secret
from hpc.world import resolve_world

world = resolve_world(os.environ)
options = RuntimeOptions(device="cpu", rendezvous_timeout_seconds=60, interface=sys.argv[2] or None)
group = open_process_group(world, process_secret(world), options, os.environ)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(2):
    model(torch.full((2, 4), float(world.rank + step))).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
weights = [parameter.sum().item() for parameter in model.parameters()]
said = f"{world.source} {world.node_rank} {os.environ['GLOO_SOCKET_IFNAME']} {weights}"
pathlib.Path(sys.argv[1], f"rank{world.rank}").write_text(said)
group.meet()
"""


def test_torchrun_on_two_nodes_trains_although_the_master_calls_itself_loopback(
    cluster: SlurmCluster, tmp_path: Path, environ: dict[str, str]
) -> None:
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1")
    master = ("--master-addr=node1", "--master-port=29400", str(script), str(tmp_path), "")
    enter = ("unshare", "--mount", "sh", "-c", DEBIAN_HOSTS, "sh")
    place = ("--nodelist=node1,node2", "--kill-on-bad-exit=1")
    cluster.run("srun", *SMALL, *place, *enter, *torchrun, *master, timeout=300, env=environ)
    said = [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)]
    assert [words.split()[:3] for words in said] == [["torchrun", "0", "eth0"], ["torchrun", "1", "eth0"]]
    assert said[0].split(maxsplit=3)[3] == said[1].split(maxsplit=3)[3]


@pytest.mark.usefixtures("fabric")
def test_a_network_names_each_hosts_own_interface_to_gloo(
    cluster: SlurmCluster, tmp_path: Path, environ: dict[str, str]
) -> None:
    program = (sys.executable, "-c", TRAIN, str(tmp_path), f"{FABRIC}.0/24")
    cluster.run("srun", *SMALL, "--nodelist=node1,node2", *program, timeout=300, env=environ)
    said = [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)]
    assert [words.split()[:3] for words in said] == [["slurm", "0", "ib0"], ["slurm", "1", "hsn0"]]


ALONE = """
import os
from hpc.config import RuntimeOptions
from hpc.connect.process_group import open_process_group
from hpc.attempt.attempt import process_secret
from hpc.world import resolve_world

world = resolve_world(os.environ)
open_process_group(world, process_secret(world), RuntimeOptions(device="cpu"), os.environ)
"""


@pytest.mark.parametrize(("asked", "is_told"), [(2, True), (1, False)])
def test_a_step_bound_to_fewer_cpus_than_the_job_asked_for_is_told_the_fix(
    cluster: SlurmCluster, tmp_path: Path, environ: dict[str, str], asked: int, is_told: bool
) -> None:
    """The task is bound to one CPU by hand, as task/affinity binds it where srun does not take -c from the job."""
    cpu = min(os.sched_getaffinity(0))
    task = shlex.join(["taskset", "--cpu-list", str(cpu), sys.executable, "-c", ALONE])
    options = ("--ntasks=1", f"--cpus-per-task={asked}", "--mem=1G", f"--output={tmp_path}/log")
    cluster.run("sbatch", "--wait", *options, "--wrap", f"srun {task}", timeout=200, env=environ)
    said = f"SLURM_CPUS_PER_TASK is {asked}, but rank 0 may use 1 CPU(s) of node"
    log = (tmp_path / "log").read_text()
    assert (said in log) == is_told
    assert (f"srun --cpus-per-task={asked}" in log) == is_told
