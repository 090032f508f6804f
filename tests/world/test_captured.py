from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import pytest

from hpc.world import World, explain_world, resolve_world
from tests.world.environments import CAPTURED, captured

ONE, TWO, THREE = ("node1",), ("node1", "node2"), ("node1", "node2", "node3")
SRUN = "This allocation has {} tasks and this process is one alone: prefix the command with `{}`."


def step(job: str, hosts: tuple[str, ...], rank: str, local: str, node: int) -> World:
    """A rank of a Slurm step: rank and local rank are written "2 of 4"."""
    (rank_, size), (local_rank, local_size) = (map(int, text.split(" of ")) for text in (rank, local))
    return World(rank_, size, local_rank, local_size, node, len(hosts), hosts, "slurm", job)


def alone(job: str) -> World:
    """A process of a Slurm job that no srun has started."""
    return World(0, 1, 0, 1, 0, 1, ("127.0.0.1",), "none", job)


Place = tuple[int, int, int, int]

UNEVEN: tuple[Place, ...] = ((0, 0, 3, 0), (1, 1, 3, 0), (2, 2, 3, 0), (3, 0, 1, 1))
"""Rank, local rank, ranks of the node, node."""
EVEN: tuple[Place, ...] = ((0, 0, 2, 0), (1, 1, 2, 0), (2, 0, 2, 1), (3, 1, 2, 1))
CYCLIC: tuple[Place, ...] = ((0, 0, 2, 0), (1, 0, 2, 1), (2, 1, 2, 0), (3, 1, 2, 1))
PAIR: tuple[Place, ...] = ((0, 0, 2, 0), (1, 1, 2, 0))


def launch(
    name: str, source: str, job: str, places: tuple[Place, ...], hosts: tuple[str, ...] = TWO
) -> dict[str, World]:
    """Every rank of a launch, by the name of its file."""
    size, nodes = len(places), len({place[3] for place in places})
    return {
        f"{name}.{hosts[node]}.{rank}": World(rank, size, local, local_size, node, nodes, hosts, source, job)
        for rank, local, local_size, node in places
    }


HOOKED = {
    name: replace(world, hosts=ONE, master=("node1", 29500))
    for name, world in launch("container_hook", "env", "env.node1:29500", UNEVEN).items()
}

WORLDS = {
    **HOOKED,
    **launch("arbitrary", "slurm", "lab.9.0", ((0, 0, 1, 1), (1, 0, 1, 0))),
    **launch("cray_shasta", "slurm", "lab.17.0", UNEVEN),
    **launch("intel_mpi", "intel-mpi", "intel-mpi.4b5c0000-5066-5338-f860-060036c6a46a", EVEN),
    **launch("mpich", "mpich", "mpich.lab.23.0", EVEN),
    **launch("mpich_uneven", "mpich", "mpich.lab.24.0", UNEVEN),
    **launch("nested_pmi2", "slurm", "lab.18.1", EVEN),
    **launch("openmpi", "openmpi", "openmpi.2021851137", EVEN),
    **launch("openmpi5", "openmpi", "openmpi.prterun-node1-23533@1", EVEN),
    **launch("openmpi_by_node", "openmpi", "openmpi.2135883777", CYCLIC),
    **launch("openmpi_uneven", "openmpi", "openmpi.2130903041", UNEVEN),
    **launch("pmi2", "slurm", "lab.15.0", UNEVEN),
    **launch("pmix", "slurm", "lab.16.0", PAIR, ONE),
    **launch("second_node", "slurm", "lab.7.0", PAIR, ("node2",)),
    "array_batch.node1.0": alone("lab.32.alone"),
    "array_srun.node1.0": step("lab.32.0", ONE, "0 of 1", "0 of 1", 0),
    "batch_step.node1.0": alone("lab.27.alone"),
    "gpus_per_task.node1.0": step("lab.39.0", TWO, "0 of 4", "0 of 2", 0),
    "gpus_per_task.node1.1": step("lab.39.0", TWO, "1 of 4", "1 of 2", 0),
    "gpus_per_task.node2.2": step("lab.39.0", TWO, "2 of 4", "0 of 2", 1),
    "gpus_per_task.node2.3": step("lab.39.0", TWO, "3 of 4", "1 of 2", 1),
    "het_batch.node1.0": alone("lab.36.alone"),
    "het_srun.node1.0": step("lab.36.0", THREE, "0 of 3", "0 of 1", 0),
    "het_srun.node2.1": step("lab.36.0", THREE, "1 of 3", "0 of 1", 1),
    "het_srun.node3.2": step("lab.36.0", THREE, "2 of 3", "0 of 1", 2),
    "salloc_shell.login1.x": alone("lab.30.alone"),
    "salloc_srun.node1.0": step("lab.31.0", TWO, "0 of 4", "0 of 2", 0),
    "salloc_srun.node1.1": step("lab.31.0", TWO, "1 of 4", "1 of 2", 0),
    "salloc_srun.node2.2": step("lab.31.0", TWO, "2 of 4", "0 of 2", 1),
    "salloc_srun.node2.3": step("lab.31.0", TWO, "3 of 4", "1 of 2", 1),
    "srun_1_per_node.node1.0": step("lab.27.2", TWO, "0 of 4", "0 of 2", 0),
    "srun_1_per_node.node1.1": step("lab.27.2", TWO, "1 of 4", "1 of 2", 0),
    "srun_1_per_node.node2.2": step("lab.27.2", TWO, "2 of 4", "0 of 2", 1),
    "srun_1_per_node.node2.3": step("lab.27.2", TWO, "3 of 4", "1 of 2", 1),
    "srun_direct.node1.0": step("lab.28.0", THREE, "0 of 3", "0 of 1", 0),
    "srun_direct.node2.1": step("lab.28.0", THREE, "1 of 3", "0 of 1", 1),
    "srun_direct.node3.2": step("lab.28.0", THREE, "2 of 3", "0 of 1", 2),
    "srun_in_batch.node1.0": step("lab.27.0", TWO, "0 of 4", "0 of 2", 0),
    "srun_in_batch.node1.1": step("lab.27.0", TWO, "1 of 4", "1 of 2", 0),
    "srun_in_batch.node2.2": step("lab.27.0", TWO, "2 of 4", "0 of 2", 1),
    "srun_in_batch.node2.3": step("lab.27.0", TWO, "3 of 4", "1 of 2", 1),
    "srun_pty.node1.0": step("lab.29.0", ONE, "0 of 1", "0 of 1", 0),
    "srun_subset_1task.node1.0": step("lab.27.1", ONE, "0 of 1", "0 of 1", 0),
    "uneven_block.node1.0": step("lab.38.1", TWO, "0 of 3", "0 of 2", 0),
    "uneven_block.node1.1": step("lab.38.1", TWO, "1 of 3", "1 of 2", 0),
    "uneven_block.node2.2": step("lab.38.1", TWO, "2 of 3", "0 of 1", 1),
    "uneven_cyclic.node1.0": step("lab.38.0", TWO, "0 of 3", "0 of 2", 0),
    "uneven_cyclic.node1.2": step("lab.38.0", TWO, "2 of 3", "1 of 2", 0),
    "uneven_cyclic.node2.1": step("lab.38.0", TWO, "1 of 3", "0 of 1", 1),
}

WARNINGS = {
    "batch_step.node1.0": SRUN.format(4, "srun"),
    "salloc_shell.login1.x": SRUN.format(4, "srun"),
    "het_batch.node1.0": SRUN.format(3, "srun --het-group=0-1"),
}


def test_the_table_covers_every_capture() -> None:
    assert sorted(WORLDS) == sorted(path.name.removesuffix(".env") for path in CAPTURED.glob("*.env"))


@pytest.mark.parametrize(("name", "world"), WORLDS.items(), ids=WORLDS)
def test_a_real_slurm_environment_resolves_to_what_was_launched(name: str, world: World) -> None:
    assert resolve_world(captured(name)) == world


@pytest.mark.parametrize("name", WORLDS)
def test_only_a_lonely_process_of_a_larger_allocation_is_warned(name: str) -> None:
    assert explain_world(captured(name)).warnings == ((WARNINGS[name],) if name in WARNINGS else ())


@pytest.mark.parametrize("name", [name for name, world in WORLDS.items() if world.source == "slurm"])
def test_the_host_of_the_node_rank_is_the_node_it_was_captured_on(name: str) -> None:
    world = WORLDS[name]
    assert world.hosts[world.node_rank] == captured(name)["SLURMD_NODENAME"]


def test_ranks_of_one_launch_differ_in_rank_and_in_their_place() -> None:
    for _, names in groupby(WORLDS, key=lambda name: name.split(".")[0]):
        worlds = [WORLDS[name] for name in names]
        assert len({world.job for world in worlds}) == 1
        assert (
            len({world.rank for world in worlds}) == len({(w.node_rank, w.local_rank) for w in worlds}) == len(worlds)
        )


def test_an_interactive_step_is_one_process_and_is_warned() -> None:
    variables = {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    explanation = explain_world({**captured("salloc_shell.login1.x"), **variables})
    assert explanation.world == alone("lab.30.alone")
    assert explanation.warnings == (SRUN.format(4, "srun"),)


@pytest.mark.parametrize("step_id", ["4294967290", "4294967291", "4294967292", "-6", "-5", "-4"])
def test_a_step_that_srun_did_not_start_is_no_step(step_id: str) -> None:
    explanation = explain_world({**captured("srun_in_batch.node1.1"), "SLURM_STEP_ID": step_id})
    reasons = {candidate.name: candidate.reason for candidate in explanation.candidates}
    assert explanation.world.source == "none"
    assert f"SLURM_STEP_ID={step_id} is the" in reasons["slurm"]


def test_a_step_is_recognised_only_by_step_num_tasks() -> None:
    environ = captured("srun_in_batch.node1.1")
    del environ["SLURM_STEP_NUM_TASKS"]
    assert resolve_world(environ).world_size == 1


def test_without_a_task_count_the_nodes_are_counted() -> None:
    environ = {"SLURM_JOB_ID": "9", "SLURM_JOB_NUM_NODES": "2", "SLURM_PROCID": "0"}
    assert explain_world(environ).warnings == (SRUN.format(2, "srun"),)


@pytest.mark.parametrize("scope", ["SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NNODES", "SLURM_NTASKS_PER_NODE"])
def test_job_scope_variables_change_nothing_in_a_step(scope: str) -> None:
    environ = captured("uneven_cyclic.node1.2")
    assert resolve_world({**environ, scope: "77"}) == WORLDS["uneven_cyclic.node1.2"]


def test_a_requeued_step_counts_its_attempts() -> None:
    environ = {**captured("srun_in_batch.node1.1"), "SLURM_RESTART_COUNT": "3"}
    assert resolve_world(environ).attempt == 3


def test_a_step_on_other_nodes_than_the_job_knows_its_own() -> None:
    step_only = {"SLURM_STEP_NODELIST": "node2", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "2"}
    own = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NODEID": "0", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}
    assert resolve_world({**captured("srun_in_batch.node2.3"), **step_only, **own}).hosts == ("node2",)


def test_a_hundred_thousand_ranks_resolve() -> None:
    variables = {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "100000",
        "SLURM_STEP_NUM_NODES": "12500",
        "SLURM_STEP_NODELIST": "nid[00001-12500]",
        "SLURM_STEP_TASKS_PER_NODE": "8(x12500)",
        "SLURM_PROCID": "99999",
        "SLURM_LOCALID": "7",
    }
    world = resolve_world({**variables, "SLURM_NODEID": "12499"})
    assert (world.rank, world.local_world_size, world.hosts[-1], world.job) == (99999, 8, "nid12500", "slurm.1.0")
