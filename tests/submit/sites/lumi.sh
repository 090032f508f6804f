#!/bin/bash

# Parameters
#SBATCH --account=project_465000000
#SBATCH --comment=out
#SBATCH --cpus-per-task=7
#SBATCH --gpus-per-node=8
#SBATCH --job-name=gpt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/here/runs/out/submitit/%j_0_log.out
#SBATCH --partition=standard-g
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=1440

# setup
export NCCL_SOCKET_IFNAME=hsn
export NCCL_NET_GDR_LEVEL=3
export CXI_FORK_SAFE=1
export CXI_FORK_SAFE_HP=1
export FI_CXI_DISABLE_CQ_HUGETLB=1
export PYTHONPATH=...
hpc_sweep=/here/runs/out
hpc_call=0
hpc_points=(0)
hpc_max_crashes=3 hpc_max_lives=5
hpc_retry_exceptions= hpc_exclude_failed_nodes=1
# ... slurm_templates/prologue.sh
# ... slurm_templates/verdicts.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /here/runs/out/submitit/%j_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=7 --cpu-bind=mask_cpu:fe000000000000,fe00000000000000,fe0000,fe000000,fe,fe00,fe00000000,fe0000000000 ...


# teardown
# ... slurm_templates/epilogue.sh
