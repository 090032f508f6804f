#!/bin/bash

# Parameters
#SBATCH --account=g123
#SBATCH --comment=out
#SBATCH --cpus-per-task=72
#SBATCH --job-name=gpt
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/here/runs/out/submitit/%j_0_log.out
#SBATCH --partition=normal
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=720

# setup
export NCCL_NET='AWS Libfabric'
export NCCL_NET_GDR_LEVEL=PHB
export NCCL_CROSS_NIC=1
export NCCL_PROTO='^LL128'
export FI_CXI_DEFAULT_CQ_SIZE=131072
export FI_CXI_DEFAULT_TX_SIZE=16384
export FI_CXI_DISABLE_HOST_REGISTER=1
export FI_CXI_RX_MATCH_MODE=software
export FI_MR_CACHE_MONITOR=userfaultfd
export PYTHONPATH=...
hpc_sweep=/here/runs/out
hpc_call=0
hpc_points=(0)
hpc_max_crashes=3 hpc_max_lives=5
hpc_retry_exceptions= hpc_exclude_failed_nodes=1
ulimit -c 0
# ... slurm_templates/prologue.sh
# ... slurm_templates/verdicts.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /here/runs/out/submitit/%j_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=72 --gpus-per-task=1 ...


# teardown
# ... slurm_templates/epilogue.sh
