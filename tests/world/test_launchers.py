from __future__ import annotations

from pathlib import Path

import pytest

from hpc.errors import WorldError
from hpc.world import World, explain_world, resolve_world
from hpc.world.launchers import LAUNCHERS
from tests.world.environments import ENV, TORCHRUN, captured

FOLDER = Path(__file__).parent.parent / "launcher_env"
LOOPBACK = ("127.0.0.1",)

STEP = captured("srun_in_batch.node1.1")
PMI2 = captured("pmi2.node2.3")
PMIX = captured("pmix.node1.1")
CRAY = captured("cray_shasta.node2.3")
OPENMPI = captured("openmpi_uneven.node2.3")
MPICH = captured("mpich.node2.3")


def environment(name: str) -> dict[str, str]:
    """An environment in tests/launcher_env, as captured/... or documented/..."""
    lines = (FOLDER / f"{name}.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def pair(source: str, job: str) -> tuple[World, World]:
    """Both ranks of a launch on one machine."""
    first, second = (World(rank, 2, rank, 2, 0, 1, LOOPBACK, source, f"{source}.{job}") for rank in (0, 1))
    return first, second


def alone(source: str, job: str, attempt: int = 0) -> World:
    return World(0, 1, 0, 1, 0, 1, LOOPBACK, source, f"{source}.{job}", attempt)


def spread(rank: int, size: int, local: str, node: int, hosts: tuple[str, ...], job: str) -> World:
    """A rank on the second of two nodes; local rank and size are written "1 of 2"."""
    local_rank, local_size = map(int, local.split(" of "))
    return World(rank, size, local_rank, local_size, node, 2, hosts, job.split(".")[0], job)


CAPTURED = {
    "intel_mpi_2021.18": pair("intel-mpi", "c02d0000-c6b3-eaad-f860-06001b0ba619"),
    "mpich_4.0.2": pair("mpich", "alone"),
    "openmpi_4.1.4": pair("openmpi", "1503068161"),
    "openmpi_5.0.11": pair("openmpi", "prterun-vm-11698@1"),
}

DOCUMENTED = {
    "mvapich2_2.3.7": spread(3, 4, "1 of 2", 1, ("node1",), "mvapich2.alone"),
    "pals_1.2": spread(5, 8, "1 of 4", 1, ("x1000c0s0b0n0",), "pals.a3c2e5f0-6f5c-4d7a"),
    "jsrun_10.3": spread(7, 12, "1 of 6", 1, ("batch1", "h41n01", "h41n02"), "jsrun.4711"),
    "flux_0.53": spread(2, 4, "0 of 2", 1, ("tioga1",), "flux.f2CbMLCfw"),
    "xla_2.6": spread(6, 8, "2 of 4", 1, ("tpu-0", "tpu-1"), "xla.tpu-0,tpu-1"),
    "kubeflow_one_pod": alone("kubeflow", "job-node-0-0"),
    "kubernetes_indexed_job": alone("kubernetes", "train-3.3"),
    "jobset_restarted": alone("kubernetes", "train-workers-0-0.0", 2),
    "sagemaker_one_host": alone("sagemaker", "gpt-1"),
    "lsf_script": alone("lsf", "4711.3"),
    "pbs_script": alone("pbs", "123.server"),
    "pbsdsh": alone("pbs", "123.server"),
    "sge_script": alone("sge", "99"),
}

WARNINGS = {
    "kubernetes_indexed_job": "JOB_COMPLETION_INDEX=3 says that there are other pods",
    "sagemaker_one_host": "This host has 8 GPUs and this process is one alone: start it with `torchrun --nproc-per",
    "lsf_script": "This job has 2 hosts (LSB_MCPU_HOSTS) and this process is one alone: start one process for each",
    "pbs_script": "This job has 2 hosts (PBS_NUM_NODES) and this process is one alone: start one process for each",
    "pbsdsh": "PBS_TASKNUM=3 numbers what pbsdsh starts, but nothing tells how many there are",
    "sge_script": "This job has 2 hosts (NHOSTS) and this process is one alone",
}


@pytest.mark.parametrize("name", CAPTURED)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_captured_launch_resolves_to_what_was_launched(name: str, rank: int) -> None:
    assert resolve_world(environment(f"captured/{name}.{rank}")) == CAPTURED[name][rank]


@pytest.mark.parametrize(("name", "world"), DOCUMENTED.items(), ids=DOCUMENTED)
def test_documented_variables_are_read_as_documented(name: str, world: World) -> None:
    explanation = explain_world(environment(f"documented/{name}"))
    assert explanation.world == world
    starts = [warning[: len(WARNINGS.get(name, ""))] for warning in explanation.warnings]
    assert starts == ([WARNINGS[name]] if name in WARNINGS else [])


def test_torchrun_on_one_machine_gives_its_agent_s_store() -> None:
    world = resolve_world(environment("captured/torchrun_2.13.1"))
    assert (world.rank, world.local_rank, world.master, world.agent_store) == (1, 1, ("localhost", 35543), True)


@pytest.mark.parametrize("name", ["cray_pmi_6.1", "htcondor_23.0", "kubeflow_v1_one_process"])
def test_a_given_meeting_point_is_used_where_nothing_else_names_hosts(name: str) -> None:
    environ = environment(f"documented/{name}")
    assert resolve_world(environ).master == (environ["MASTER_ADDR"], int(environ["MASTER_PORT"]))


def test_a_task_of_hyperqueue_is_alone_although_its_worker_is_a_slurm_task() -> None:
    explanation = explain_world({**STEP, **environment("captured/hyperqueue_0.27.0"), "HQ_NUM_NODES": "2"})
    assert explanation.world == alone("hyperqueue", "1.0.0")
    assert explanation.warnings[0].startswith("This task has 2 nodes and HyperQueue starts one process on the first")


def test_every_fixture_is_used() -> None:
    used = {f"captured/{name}.{rank}" for name in (*CAPTURED, "torchrun_2.13", "prterun_3.0") for rank in (0, 1)}
    used |= {"captured/hyperqueue_0.27.0"} | {f"documented/{name}" for name in (*DOCUMENTED, *REFUSED, *MET)}
    assert used == {str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.env")}


MET = ("cray_pmi_6.1", "htcondor_23.0", "kubeflow_v1_one_process")
REFUSED = {
    "kubeflow_v1_eight_processes": "PET_NNODES=2 and PET_NPROC_PER_NODE=8 must be read by torchrun",
    "sagemaker_two_hosts": "SM_HOSTS must be read by torchrun, .* on one of 2: choose distribution=",
}


@pytest.mark.parametrize(("name", "message"), REFUSED.items(), ids=REFUSED)
def test_pods_are_no_ranks(name: str, message: str) -> None:
    with pytest.raises(WorldError, match=message):
        resolve_world(environment(f"documented/{name}"))


@pytest.mark.parametrize("name", [*REFUSED, *MET])
def test_torchrun_is_believed_in_every_pod(name: str) -> None:
    assert resolve_world({**environment(f"documented/{name}"), **TORCHRUN}).source == "torchrun"


@pytest.mark.parametrize("launcher", [OPENMPI, MPICH, environment("documented/jsrun_10.3")])
def test_torchrun_is_believed_inside_mpirun(launcher: dict[str, str]) -> None:
    assert resolve_world({**launcher, **TORCHRUN}).source == "torchrun"


def test_mpirun_is_believed_over_the_step_of_its_own_daemons() -> None:
    explanation = explain_world(OPENMPI)
    reasons = {candidate.name: candidate.reason for candidate in explanation.candidates}
    assert (explanation.world.source, explanation.world.rank) == ("openmpi", 3)
    assert reasons["slurm"] == "rank 0 of 1, but openmpi comes first"


def test_mpirun_of_one_process_does_not_hide_the_step_around_it() -> None:
    one = {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}
    local = {"OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}
    assert resolve_world({**STEP, **one, **local}).source == "slurm"
    assert resolve_world({**one, **local}).source == "openmpi"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({**PMI2, "PMI_RANK": "2"}, "by a Slurm job step it is 3 of 4, and by the PMI of srun 2 of 4"),
        ({**PMI2, "PMI_SIZE": "8"}, "by a Slurm job step it is 3 of 4, and by the PMI of srun 3 of 8"),
        ({**PMIX, "PMIX_RANK": "0"}, "by a Slurm job step it is 1 of 2, and by the PMI of srun 0 of 2"),
        ({**CRAY, "PALS_RANKID": "0"}, "by a Slurm job step it is 3 of 4, and by the PMI of srun 0 of 4"),
        ({**OPENMPI, **ENV}, "by torch's env:// variables it is 1 of 4, and by Open MPI's mpirun 3 of 4"),
        ({**MPICH, **environment("documented/flux_0.53"), "FLUX_TASK_RANK": "0"}, "by Flux .* and by MPICH's mpiexec"),
        (environment("captured/prterun_3.0.1"), "PMIX_RANK=1 must come with a world size, .* `prterun --personality"),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, "MPI_LOCALRANKID or PMI_LOCAL_RANK must be set where PMI_RANK=1 is"),
        ({**OPENMPI, "OMPI_COMM_WORLD_RANK": "4"}, "OMPI_COMM_WORLD_RANK must be below OMPI_COMM_WORLD_SIZE"),
        ({**MPICH, "MPI_LOCALNRANKS": "5"}, "MPI_LOCALNRANKS must be at most PMI_SIZE, which is 4"),
        ({**environment("documented/flux_0.53"), "FLUX_JOB_SIZE": "5"}, "FLUX_JOB_SIZE must be a multiple of FLUX_JOB"),
        ({"_CONDOR_PROCNO": "1", "_CONDOR_NPROCS": "2"}, "MASTER_ADDR and MASTER_PORT must be set where _CONDOR_NPRO"),
        ({**environment("documented/xla_2.6"), "TPU_WORKER_ID": ""}, "TPU_WORKER_ID must be set where TPU_WORKER_HO"),
        ({"SM_HOSTS": "algo-1"}, "SM_HOSTS must be a JSON list of hosts, but is 'algo-1'"),
        (
            {**captured("container_hook.node2.3"), "MASTER_ADDR": "127.0.0.1"},
            "MASTER_ADDR must be an address that all 2 nodes of the step can reach, but is 127.0.0.1",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_fix(environ: dict[str, str], message: str) -> None:
    with pytest.raises(WorldError, match=message):
        resolve_world(environ)


@pytest.mark.parametrize(
    ("environ", "launcher"), [(PMI2, "slurm"), (OPENMPI, "slurm"), (MPICH, "none"), (CRAY, "pals")]
)
def test_the_switch_overrides_what_the_table_thinks(environ: dict[str, str], launcher: str) -> None:
    complete = {"PALS_LOCAL_RANKID": "0", "PALS_LOCAL_SIZE": "1", "PMI_SIZE": "4"}
    assert resolve_world({**complete, **environ}, launcher).source == launcher


def test_ranks_without_any_host_list_are_told_to_export_one() -> None:
    environ = {**environment("documented/cray_pmi_6.1"), "MASTER_ADDR": ""}
    (warning,) = explain_world(environ).warnings
    assert warning.startswith("Nothing names the hosts of these 2 nodes, so rank 0 will not be found: export MASTER_")


def test_mpirun_s_own_address_stands_in_for_a_host_list() -> None:
    variables = {name: value for name, value in OPENMPI.items() if not name.startswith("SLURM")}
    assert resolve_world(variables).hosts == ("10.77.0.1",)


@pytest.mark.parametrize(("gpus", "warned"), [("1", False), ("8", True)])
def test_idle_gpus_of_a_batch_script_are_mentioned(gpus: str, warned: bool) -> None:
    environ = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "1", "SLURM_GPUS_ON_NODE": gpus}
    assert any("all but one stay idle" in warning for warning in explain_world(environ).warnings) == warned


def test_the_names_of_launchers_are_unique() -> None:
    assert len({row.name for row in LAUNCHERS}) == len(LAUNCHERS)
