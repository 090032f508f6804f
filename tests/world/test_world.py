from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.errors import WorldError
from hpc.world import World, explain_world, resolve_world
from hpc.world.launcher import enumerate_words
from hpc.world.launchers import LAUNCHERS
from tests.world.environments import ENV, ENV_LOCAL, SUBMITIT_LOCAL, TORCHRUN, captured

STEP = captured("srun_in_batch.node1.1")
ONE_TASK = captured("srun_subset_1task.node1.0")
BATCH = captured("batch_step.node1.0")


def statuses(environ: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Status and reason of every launcher."""
    return {each.name: (each.status, each.reason) for each in explain_world(environ).candidates}


def test_an_empty_environment_is_a_world_of_one() -> None:
    assert resolve_world({}) == World(0, 1, 0, 1, 0, 1, ("127.0.0.1",), "none", "alone")


def test_rank_zero_is_main_and_the_first_of_a_node_is_local_main() -> None:
    worlds = [resolve_world(captured(f"srun_in_batch.node{node}")) for node in ("1.0", "1.1", "2.2", "2.3")]
    assert [world.is_main for world in worlds] == [True, False, False, False]
    assert [world.is_local_main for world in worlds] == [True, False, True, False]


def test_torchrun_says_all_there_is_to_know() -> None:
    assert not resolve_world({**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "False"}).agent_store
    assert resolve_world(TORCHRUN) == World(
        rank=3,
        world_size=4,
        local_rank=1,
        local_world_size=2,
        node_rank=1,
        node_count=2,
        hosts=("node1",),
        source="torchrun",
        job="torchrun.abc",
        attempt=2,
        master=("node1", 41985),
        agent_store=True,
    )


@pytest.mark.parametrize(("rank", "local_rank"), [("0", 0), ("1", 1), ("2", 0), ("3", 1)])
def test_a_virtual_local_rank_is_seen_through(rank: str, local_rank: int) -> None:
    environ = {**TORCHRUN, "RANK": rank, "LOCAL_RANK": "0", "GROUP_RANK": str(int(rank) // 2)}
    assert resolve_world(environ).local_rank == local_rank


def test_local_ranks_of_uneven_agents_are_believed() -> None:
    uneven = {"WORLD_SIZE": "3", "RANK": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1"}
    assert resolve_world({**TORCHRUN, **uneven}).local_rank == 0


def test_complete_env_variables_are_a_world() -> None:
    assert resolve_world({**ENV_LOCAL, "RANK": "3"}) == World(
        rank=3,
        world_size=4,
        local_rank=1,
        local_world_size=2,
        node_rank=1,
        node_count=2,
        hosts=("node1",),
        source="env",
        job="env.node1:29500",
        master=("node1", 29500),
    )


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"MASTER_ADDR": "127.0.0.1"}, (1, 4, 0, 1)),
        ({"MASTER_ADDR": "localhost"}, (1, 4, 0, 1)),
        ({"MASTER_ADDR": "::1", "LOCAL_RANK": "3"}, (3, 4, 0, 1)),
        ({"MASTER_ADDR": "pod-0"}, (0, 1, 1, 4)),
        ({"LOCAL_WORLD_SIZE": "2"}, (1, 2, 0, 2)),
        ({"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0", "NODE_RANK": "1"}, (0, 2, 1, 2)),
        ({"LOCAL_WORLD_SIZE": "3", "LOCAL_RANK": "1"}, (1, 3, 0, 2)),
    ],
)
def test_the_place_on_the_node_follows_from_what_is_set(
    variables: dict[str, str], place: tuple[int, int, int, int]
) -> None:
    world = resolve_world({**ENV, **variables})
    assert (world.local_rank, world.local_world_size, world.node_rank, world.node_count) == place


def test_a_guessed_place_on_the_node_is_said_to_be_one() -> None:
    assert "LOCAL_RANK and LOCAL_WORLD_SIZE are not set" in explain_world(ENV).warnings[0]


@pytest.mark.parametrize(
    "told", [{"LOCAL_WORLD_SIZE": "1"}, {"MASTER_ADDR": "127.0.0.1"}, {"WORLD_SIZE": "1", "RANK": "0"}]
)
def test_a_place_that_is_no_guess_is_not_warned_about(told: dict[str, str]) -> None:
    assert explain_world({**ENV, **told}).warnings == ()


def test_a_submitit_rehearsal_is_on_this_host() -> None:
    expected = World(5, 8, 5, 8, 0, 1, ("127.0.0.1",), "submitit-local", "submitit-local.4711")
    assert resolve_world(SUBMITIT_LOCAL) == expected


def test_submitit_under_slurm_is_a_slurm_step() -> None:
    environ = {**STEP, **SUBMITIT_LOCAL, "SUBMITIT_EXECUTOR": "slurm"}
    assert resolve_world(environ) == resolve_world(STEP)
    assert "SUBMITIT_EXECUTOR is slurm" in statuses(environ)["submitit-local"][1]


@pytest.mark.parametrize("around", [BATCH, ONE_TASK, captured("salloc_shell.login1.x"), captured("srun_pty.node1.0")])
def test_a_rehearsal_inside_an_allocation_is_the_inner_one(around: dict[str, str]) -> None:
    explanation = explain_world({**around, **SUBMITIT_LOCAL})
    assert (explanation.world.source, explanation.warnings) == ("submitit-local", ())


@pytest.mark.parametrize(
    ("environ", "source"),
    [
        ({**TORCHRUN, **STEP, **SUBMITIT_LOCAL}, "torchrun"),
        ({**TORCHRUN, **BATCH}, "torchrun"),
        ({**ENV, **BATCH}, "env"),
        ({**ENV, **ONE_TASK}, "env"),
        ({**ENV, **STEP}, "env"),
        ({**STEP, "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}, "slurm"),
        ({**STEP, "TORCHELASTIC_RUN_ID": "", "RANK": ""}, "slurm"),
    ],
)
def test_the_most_explicit_launcher_is_believed(environ: dict[str, str], source: str) -> None:
    assert resolve_world(environ).source == source


def test_every_rejected_launcher_has_its_reason() -> None:
    assert statuses({**TORCHRUN, **STEP}) == {
        **{row.name: ("absent", row.refusal({})) for row in LAUNCHERS if row.signs},
        "torchrun": ("chosen", "TORCHELASTIC_RUN_ID=abc"),
        "env": ("rejected", "rank 3 of 4, but torchrun comes first"),
        "slurm": ("rejected", "rank 1 of 4, but torchrun comes first"),
        "none": ("rejected", "rank 0 of 1, but torchrun comes first"),
    }
    assert statuses(TORCHRUN)["submitit-local"] == ("absent", "SUBMITIT_EXECUTOR is not set")


def test_a_lower_claim_that_is_half_set_is_rejected_not_fatal() -> None:
    environ = {**TORCHRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    assert statuses(environ)["slurm"][1].startswith("SLURM_JOB_ID, SLURM_STEP_ID, SLURM_STEP_NUM_NODES")


def test_a_lower_claim_that_cannot_be_is_rejected_not_fatal() -> None:
    status, reason = statuses({**TORCHRUN, **STEP, "SLURM_PROCID": "9"})["slurm"]
    assert (status, reason[:28]) == ("rejected", "SLURM_PROCID must be below S")


@pytest.mark.parametrize(
    ("forced", "size"), [("none", 1), ("env", 4), ("slurm", 4), ("submitit-local", 8), ("torchrun", 4)]
)
def test_the_switch_chooses_the_launcher(forced: str, size: int) -> None:
    explanation = explain_world({**TORCHRUN, **STEP, **SUBMITIT_LOCAL, "HPC_LAUNCHER": forced})
    assert (explanation.world.source, explanation.world.world_size) == (forced, size)
    asked = [candidate for candidate in explanation.candidates if candidate.status != "absent"]
    assert {candidate.reason for candidate in asked} == {f"HPC_LAUNCHER={forced}"}


def test_auto_is_no_choice() -> None:
    assert explain_world({**STEP, "HPC_LAUNCHER": "auto"}, "auto").world.source == "slurm"


def test_the_configuration_beats_the_environment() -> None:
    explanation = explain_world({**TORCHRUN, **STEP, "HPC_LAUNCHER": "torchrun"}, "slurm")
    reasons = {candidate.name: candidate.reason for candidate in explanation.candidates}
    assert (explanation.world.source, reasons["torchrun"]) == ("slurm", "runtime.launcher=slurm")


def test_a_launcher_of_the_configuration_is_refused_by_the_setting_s_name() -> None:
    with pytest.raises(WorldError, match=r"runtime\.launcher=openmpi asks for Open MPI's mpirun, but OMPI_COMM"):
        resolve_world(STEP, "openmpi")


def test_who_switched_detection_off_is_not_warned() -> None:
    assert explain_world({**BATCH, "HPC_LAUNCHER": "none"}).warnings == ()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"HPC_LAUNCHER": "mpi"},
            "HPC_LAUNCHER must be auto, torchrun, kubeflow, env, .*, sge or none, but is 'mpi': corr",
        ),
        (
            {**BATCH, "HPC_LAUNCHER": "slurm"},
            "HPC_LAUNCHER=slurm asks for a Slurm job step, but SLURM_STEP_NUM_TASKS is",
        ),
        ({"RANK": "0"}, "WORLD_SIZE, MASTER_ADDR and MASTER_PORT must be set where RANK is, .* but are not: set what"),
        ({"WORLD_SIZE": "4"}, "RANK, MASTER_ADDR and MASTER_PORT must be set where WORLD_SIZE is"),
        ({**ENV, "MASTER_PORT": ""}, "MASTER_PORT must be set where RANK and WORLD_SIZE are, .* but is not"),
        (
            {**STEP, "WORLD_SIZE": "4"},
            "HPC_LAUNCHER to whom to believe instead \\(slurm, none\\)",
        ),
        ({**TORCHRUN, "LOCAL_RANK": ""}, "LOCAL_RANK must be set where TORCHELASTIC_RUN_ID is, to make torchrun"),
        (
            {**STEP, "SLURM_LOCALID": ""},
            "SLURM_LOCALID must be set where SLURM_STEP_NUM_TASKS is, to make a Slurm job step",
        ),
        ({"SUBMITIT_EXECUTOR": "local"}, "SUBMITIT_LOCAL_JOB_ID, SUBMITIT_LOCAL_NTASKS, .* where SUBMITIT_EXECUTOR is"),
        ({**ENV, "RANK": "one"}, "RANK must be a whole number from 0 up, but is 'one'"),
        ({**ENV, "RANK": "-1"}, "RANK must be a whole number from 0 up, but is '-1'"),
        ({**ENV, "WORLD_SIZE": "0"}, "WORLD_SIZE must be a whole number from 1 up, but is '0'"),
        ({**ENV, "RANK": "4"}, "RANK must be below WORLD_SIZE, which is 4, but is 4: correct one of the two"),
        ({**ENV_LOCAL, "LOCAL_RANK": "2"}, "LOCAL_RANK must be below LOCAL_WORLD_SIZE, which is 2, but is 2"),
        ({**ENV, "LOCAL_RANK": "0"}, "LOCAL_WORLD_SIZE must be set where LOCAL_RANK is, but is not: set it to the"),
        ({**ENV_LOCAL, "LOCAL_WORLD_SIZE": "5"}, "LOCAL_WORLD_SIZE must be at most WORLD_SIZE, which is 4, but is 5"),
        ({**ENV_LOCAL, "NODE_RANK": "2"}, "NODE_RANK must be below the number of nodes, which is 2, but is 2"),
        ({**ENV, "MASTER_PORT": "70000"}, "MASTER_PORT must be at most the highest port, which is 65535, but is 70000"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "8"}, "LOCAL_WORLD_SIZE must be at most WORLD_SIZE"),
        ({**TORCHRUN, "GROUP_WORLD_SIZE": "8"}, "GROUP_WORLD_SIZE must be at most WORLD_SIZE"),
        ({**TORCHRUN, "GROUP_RANK": "2"}, "GROUP_RANK must be below GROUP_WORLD_SIZE, which is 2"),
        ({**STEP, "SLURM_PROCID": "4"}, "SLURM_PROCID must be below SLURM_STEP_NUM_TASKS, which is 4, but is 4"),
        (
            {**STEP, "SLURM_LOCALID": "2"},
            "SLURM_LOCALID must be below the tasks of node 0 in SLURM_STEP_TASKS_PER_NODE",
        ),
        ({**STEP, "SLURM_NODEID": "2"}, "SLURM_NODEID must be below SLURM_STEP_NUM_NODES"),
        (
            {**STEP, "SLURM_STEP_NODELIST": "node1"},
            "must agree with SLURM_STEP_TASKS_PER_NODE .* \\(1 nodes\\), but do not",
        ),
        ({**STEP, "SLURM_STEP_TASKS_PER_NODE": "3,2"}, "\\(5 tasks on 2 nodes\\)"),
        ({**STEP, "SLURM_STEP_NODELIST": "node[1-"}, "must match one to one"),
        (
            {**SUBMITIT_LOCAL, "SUBMITIT_LOCAL_GLOBALID": "8"},
            "SUBMITIT_LOCAL_GLOBALID must be below SUBMITIT_LOCAL_NTASKS",
        ),
        (
            {**ENV, **STEP, "RANK": "0"},
            "by torch's env:// variables it is 0 of 4, and by a Slurm job step 1 of 4: unset what an outer job left"
            " behind, or say whom to believe with HPC_LAUNCHER=env or HPC_LAUNCHER=slurm",
        ),
        ({**STEP, **ENV, "WORLD_SIZE": "2"}, "it is 1 of 2, and by a Slurm job step 1 of 4"),
        ({**STEP, **SUBMITIT_LOCAL}, "by submitit's local executor it is 5 of 8, and by a Slurm job step 1 of 4"),
        (
            {**SUBMITIT_LOCAL, **ENV},
            "by torch's env:// variables it is 1 of 4, and by submitit's local executor 5 of 8",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_fix(environ: dict[str, str], message: str) -> None:
    with pytest.raises(WorldError, match=message):
        resolve_world(environ)


def test_every_row_names_its_sources_with_versions() -> None:
    assert all(re.search(r"\d+\.\d+", row.facts) for row in LAUNCHERS if row.signs)
    assert len({row.name for row in LAUNCHERS}) == len(LAUNCHERS)


def test_only_the_last_row_takes_whoever_comes() -> None:
    assert [bool(row.signs) for row in LAUNCHERS] == [True] * (len(LAUNCHERS) - 1) + [False]


@pytest.mark.parametrize(("words", "text"), [(("a",), "a"), (("a", "b"), "a or b"), (("a", "b", "c"), "a, b or c")])
def test_words_are_joined_as_in_a_sentence(words: tuple[str, ...], text: str) -> None:
    assert enumerate_words(words, "or") == text


OTHERS = (
    "openmpi.node2.3",
    "mpich.node2.3",
    "intel_mpi.node2.3",
    "pmi2.node2.3",
    "pmix.node1.1",
    "cray_shasta.node2.3",
)
NAMES = {name for row in LAUNCHERS for name in (*row.signs, *row.needs)}
VARIABLES = sorted({*TORCHRUN, *SUBMITIT_LOCAL, *STEP, "HPC_LAUNCHER", *NAMES})
VALUES = st.sampled_from(["", "0", "1", "2", "-1", "x", "local", "node[1-2]", "2(x2)", "4294967290", "none"])


STARTS = [{}, TORCHRUN, ENV, SUBMITIT_LOCAL, STEP, *map(captured, OTHERS)]


@given(st.sampled_from(STARTS), st.dictionaries(st.sampled_from(VARIABLES), VALUES))
def test_any_environment_is_a_possible_world_or_refused(start: dict[str, str], changes: dict[str, str]) -> None:
    try:
        world = resolve_world({**start, **changes})
    except WorldError:
        return
    assert 0 <= world.rank < world.world_size
    assert 0 <= world.local_rank < world.local_world_size <= world.world_size
    assert 0 <= world.node_rank < world.node_count <= world.world_size
