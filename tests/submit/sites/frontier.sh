#!/bin/bash

# Parameters
#SBATCH --account=ABC123
#SBATCH --comment=out
#SBATCH --cpus-per-task=7
#SBATCH --job-name=gpt
#SBATCH --network=disable_rdzv_get
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/here/runs/out/submitit/%j_0_log.out
#SBATCH --partition=batch
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=120

# setup
export NCCL_SOCKET_IFNAME=hsn0,hsn1,hsn2,hsn3
export NCCL_CROSS_NIC=1
export NCCL_NET_GDR_LEVEL=PHB
export FI_MR_CACHE_MONITOR=kdreg2
export FI_CXI_RDZV_PROTO=alt_read
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
srun --unbuffered --output /here/runs/out/submitit/%j_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=7 --gpus-per-task=1 --gpu-bind=closest ...


# teardown
# ... slurm_templates/epilogue.sh
