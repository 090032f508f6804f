"""Who started this process? One table, one row for each launcher.

A row is data and one small function of `hpc.world.readings`. A new launcher is one more row, placed by how explicit it
is: what was started last, innermost, stands first, and `depth` says inside what it may have been started.
"""

from __future__ import annotations

from hpc.world.launcher import INSIDE_A_STEP, INSIDE_ANYTHING, Launcher
from hpc.world.readings import batch, mpi, pods, slurm, torch_variables


def _mpi(name: str, title: str, sign: str, names: mpi.Names, facts: str, owns: tuple[str, ...]) -> Launcher:
    """A row for a launcher of MPI: four numbers under names of its own."""
    needs = tuple(dict.fromkeys((names.rank, names.size, names.local_rank, names.local_size)))
    return Launcher(
        *(name, title, (sign,), needs, mpi.reader(name, names), facts, owns, INSIDE_A_STEP),
        doubt=mpi.doubt(names),
        advice=mpi.advice,
    )


STEP_VARIABLES = (
    *("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NUM_NODES", "SLURM_STEP_NODELIST"),
    *("SLURM_STEP_TASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
)

LAUNCHERS = (
    Launcher(
        name="torchrun",
        title="torchrun",
        signs=("TORCHELASTIC_RUN_ID",),
        needs=(
            *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"),
            *("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"),
        ),
        read=torch_variables.read_torchrun,
        facts="torch 2.6 to 2.15, elastic/agent/server/local_elastic_agent.py; --virtual-local-rank since 2.13",
        owns=("TORCHELASTIC_", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE"),
        depth=INSIDE_ANYTHING,
    ),
    Launcher(
        # Above torch's own variables: the operator's version 1 sets RANK, too, and means the pod by it.
        name="kubeflow",
        title="Kubeflow",
        signs=("PET_NNODES", "PET_NODE_RANK", "PET_NPROC_PER_NODE"),
        needs=(),
        read=pods.read_kubeflow,
        facts="documented: training-operator 1.7 to 1.9, Trainer 2.0 (torch plugin); torchrun reads PET_* as options",
        owns=("PET_",),
        doubt=pods.kubeflow_doubt,
        advice=pods.kubeflow_advice,
    ),
    Launcher(
        name="env",
        title="torch's env:// variables",
        signs=("RANK", "WORLD_SIZE"),
        needs=("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        read=torch_variables.read_env,
        facts="torch 2.6 to 2.15, distributed/rendezvous.py; LOCAL_RANK and its kin are a custom, not a rule",
        owns=("LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK"),
        advice=torch_variables.env_advice,
    ),
    _mpi(
        *("jsrun", "LSF's jsrun", "JSM_NAMESPACE_SIZE", mpi.JSRUN),
        "documented: IBM Spectrum LSF 10.1 with JSM 10.3; read by Lightning 2.5, plugins/environments/lsf.py",
        ("JSM_",),
    ),
    _mpi(
        *("openmpi", "Open MPI's mpirun", "OMPI_COMM_WORLD_SIZE", mpi.OPENMPI),
        "captured on Open MPI 4.1.4 and 5.0.11 (PRRTE 3.0); OMPI_COMM_WORLD_NODE_RANK numbers processes, not nodes",
        ("OMPI_",),
    ),
    _mpi(
        *("mvapich2", "MVAPICH2's mpirun_rsh", "MV2_COMM_WORLD_SIZE", mpi.MVAPICH2),
        "documented: MVAPICH2 2.3.7 user guide, environment of mpirun_rsh",
        ("MV2_COMM_WORLD_", "MPIRUN_"),
    ),
    _mpi(
        *("pals", "Cray PALS", "PALS_RANKID", mpi.PALS),
        "documented: cray-pals 1.2 mpiexec(1); the world's size is PMI_SIZE, PALS has no name for it",
        ("PALS_",),
    ),
    Launcher(
        name="flux",
        title="Flux",
        signs=("FLUX_TASK_RANK",),
        needs=("FLUX_TASK_RANK", "FLUX_TASK_LOCAL_ID", "FLUX_JOB_SIZE", "FLUX_JOB_NNODES", "FLUX_JOB_ID"),
        read=batch.read_flux,
        facts="documented: flux-core 0.53 and later, src/shell/task.c; FLUX_JOB_ID is F58 text",
        owns=("FLUX_TASK_", "FLUX_JOB_"),
        depth=INSIDE_A_STEP,
        advice=mpi.advice,
    ),
    _mpi(
        *("intel-mpi", "Intel MPI's mpiexec", "I_MPI_HYDRA_UUID", mpi.INTEL),
        "captured on Intel MPI 2021.18; every rank of one mpiexec has the same I_MPI_HYDRA_UUID",
        ("I_MPI_HYDRA_",),
    ),
    _mpi(
        *("mpich", "MPICH's mpiexec", "MPI_LOCALRANKID", mpi.HYDRA),
        "captured on MPICH 4.0.2 (Hydra); MPI_LOCALRANKID and MPI_LOCALNRANKS since 3.2",
        (),
    ),
    _mpi(
        *("cray-pmi", "Cray PMI", "PMI_LOCAL_RANK", mpi.CRAY),
        "documented: cray-pmi 6.1 intro_pmi(3)",
        ("PMI_",),
    ),
    Launcher(
        name="pmi",
        title="a PMI launcher",
        signs=("PMI_RANK",),
        needs=("PMI_SIZE",),
        read=mpi.read_bare_pmi,
        facts="captured with MPICH 4.0.2 and Slurm 22.05.8, --mpi=pmi2: PMI itself has no local rank",
        owns=("PMI_", "PMI2_"),
        depth=INSIDE_A_STEP,
        doubt=mpi.doubt(mpi.CRAY),
    ),
    Launcher(
        name="pmix",
        title="a PMIx launcher",
        signs=("PMIX_RANK",),
        needs=("PMIX_NAMESPACE",),
        read=mpi.read_bare_pmix,
        facts="captured on PRRTE 3.0 (prterun) and OpenPMIx 4.2.2: rank and name space, and no size",
        owns=("PMIX_", "PRTE_"),
        depth=INSIDE_A_STEP,
        doubt=mpi.bare_pmix_doubt,
    ),
    Launcher(
        name="htcondor",
        title="HTCondor's parallel universe",
        signs=("_CONDOR_NPROCS",),
        needs=("_CONDOR_PROCNO",),
        read=batch.read_htcondor,
        facts="documented: HTCondor 23.0 manual, parallel applications",
        owns=("_CONDOR_",),
    ),
    Launcher(
        name="xla",
        title="torch_xla's launcher",
        signs=("PJRT_LOCAL_PROCESS_RANK",),
        needs=("PJRT_LOCAL_PROCESS_COUNT",),
        read=pods.read_xla,
        facts="documented: torch_xla 2.6, csrc/runtime/env_vars.cc; recognised by its variables, never run on a TPU",
        owns=("PJRT_LOCAL_PROCESS_",),
        depth=INSIDE_A_STEP,
    ),
    Launcher(
        # Above the Slurm step: a rehearsal started in a one-task step, or in a shell that srun opened, is the inner
        # of the two. In a step of several tasks neither can be told from the other's leftovers, so they must agree.
        name="submitit-local",
        title="submitit's local executor",
        signs=("SUBMITIT_EXECUTOR",),
        needs=("SUBMITIT_LOCAL_JOB_ID", "SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_LOCALID"),
        read=batch.read_submitit_local,
        facts="submitit 1.5.4, local/local.py",
        owns=("SUBMITIT_",),
        doubt=batch.submitit_doubt,
    ),
    Launcher(
        # Above the Slurm step: a worker started by srun hands its own step to every task.
        name="hyperqueue",
        title="HyperQueue",
        signs=("HQ_TASK_ID",),
        needs=("HQ_JOB_ID",),
        read=batch.read_hyperqueue,
        facts="captured on HyperQueue 0.27.0",
        owns=("HQ_",),
        depth=INSIDE_A_STEP,
        advice=batch.hyperqueue_advice,
    ),
    Launcher(
        name="slurm",
        title="a Slurm job step",
        signs=("SLURM_STEP_NUM_TASKS",),
        needs=STEP_VARIABLES,
        read=slurm.read_slurm,
        facts="captured on Slurm 22.05.8 (tests/slurm_env); srun alone sets SLURM_STEP_NUM_TASKS (src/common/env.c)",
        owns=("SLURM_", "SLURMD_", "SRUN_", "SQUEUE_"),
        doubt=slurm.slurm_doubt,
        advice=slurm.step_advice,
    ),
    Launcher(
        # Below the step, which knows more: the two must agree.
        name="srun-pmi",
        title="the PMI of srun",
        signs=tuple(slurm.PMI_RANKS),
        needs=STEP_VARIABLES,
        read=slurm.read_srun_pmi,
        facts="captured on Slurm 22.05.8: --mpi=pmi2, cray_shasta and pmix (OpenPMIx 4.2.2) each name <job>.<step>",
        doubt=slurm.srun_pmi_doubt,
    ),
    Launcher(
        name="sagemaker",
        title="SageMaker",
        signs=("SM_HOSTS",),
        needs=(),
        read=pods.read_sagemaker,
        facts="documented: sagemaker-training 4.8, ENVIRONMENT_VARIABLES.md",
        owns=("SM_",),
        advice=pods.sagemaker_advice,
    ),
    Launcher(
        name="kubernetes",
        title="a Kubernetes indexed Job or JobSet",
        signs=("JOB_COMPLETION_INDEX",),
        needs=(),
        read=pods.read_kubernetes,
        facts="documented: Kubernetes 1.24 and later, Job with completionMode Indexed; JobSet 0.8 starts such Jobs",
        owns=("JOBSET_",),
        advice=pods.kubernetes_advice,
    ),
    Launcher(
        name="lsf",
        title="an LSF job",
        signs=("LSB_JOBID",),
        needs=(),
        read=batch.read_lsf,
        facts="documented: LSF 10.1, environment variables; LSB_HOSTS vanishes above 4096 bytes, LSB_MCPU_HOSTS stays",
        owns=("LSB_",),
        advice=batch.lsf_advice,
    ),
    Launcher(
        name="pbs",
        title="a PBS or Torque job",
        signs=("PBS_JOBID",),
        needs=(),
        read=batch.read_pbs,
        facts="documented: Torque 6.1 and OpenPBS 23.06; PBS_TASKNUM is 1 in the script and in pbsdsh's first task",
        owns=("PBS_",),
        advice=batch.pbs_advice,
    ),
    Launcher(
        name="sge",
        title="a Grid Engine job",
        signs=("PE_HOSTFILE", "SGE_TASK_ID"),
        needs=(),
        read=batch.read_sge,
        facts="documented: SGE 6.2 qsub(1); NSLOTS are slots, and PE_HOSTFILE exists on the first node only",
        owns=("NHOSTS", "NSLOTS"),
        advice=batch.sge_advice,
    ),
    Launcher(
        name="none",
        title="no launcher",
        signs=(),
        needs=(),
        read=slurm.read_none,
        facts="a process that nobody numbered is rank 0 of 1",
        advice=slurm.srun_advice,
    ),
)
"""Every launcher we know, most explicit first; the first that claims the process is believed."""


def is_a_launchers(variable: str) -> bool:
    """Whether any launcher of the table sets an environment variable of this name."""
    return any(launcher.has_set(variable) for launcher in LAUNCHERS)
