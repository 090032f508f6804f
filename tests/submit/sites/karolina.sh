#!/bin/bash

# Parameters
#SBATCH --account=OPEN-1-2
#SBATCH --comment=out
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=8
#SBATCH --job-name=gpt
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/here/runs/out/submitit/%j_0_log.out
#SBATCH --partition=qgpu
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=1440

# setup
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
srun --unbuffered --output /here/runs/out/submitit/%j_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=16 ...


# teardown
# ... slurm_templates/epilogue.sh
