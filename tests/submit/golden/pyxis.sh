#!/bin/bash

# Parameters
#SBATCH --comment=out
#SBATCH --cpus-per-task=16
#SBATCH --gres=gpu:a100:8
#SBATCH --job-name=gpt
#SBATCH --mem=960G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/project/runs/out/submitit/%j_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=1440

# setup
export NCCL_SOCKET_IFNAME=hsn0
export PYTHONPATH=...
hpc_sweep=/project/runs/out
hpc_call=0
hpc_points=(0)
hpc_max_crashes=3 hpc_max_lives=5
hpc_retry_exceptions= hpc_exclude_failed_nodes=1
<prologue.sh>
<verdicts.sh>
export PYTHONNOUSERSITE=1 # packages in the home directory are for the Python outside
hpc_worker=(python3)
hpc_image=''
<pyxis.sh>

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /project/runs/out/submitit/%j_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=16 '--container-image=nvcr.io#nvidia/pytorch:25.09-py3' --container-mounts=/tmp:/tmp,/project:/project,/data:/in:ro --container-workdir=/project --container-env=PYTHONPATH,PYTHONNOUSERSITE,NCCL_SOCKET_IFNAME --no-container-mount-home --further "${hpc_worker[@]}" -u -m hpc.submit.payload "$hpc_sweep" "$hpc_point" owner


# teardown
<epilogue.sh>