#!/bin/bash

# Parameters
#SBATCH --account=prj
#SBATCH --comment=out
#SBATCH --cpus-per-task=24
#SBATCH --gres=gpu:4
#SBATCH --job-name=gpt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/here/runs/out/submitit/%j_0_log.out
#SBATCH --partition=booster
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=720

# setup
export NCCL_SOCKET_IFNAME=ib0
export GLOO_SOCKET_IFNAME=ib0
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
srun --unbuffered --output /here/runs/out/submitit/%j_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=24 ...


# teardown
# ... slurm_templates/epilogue.sh
