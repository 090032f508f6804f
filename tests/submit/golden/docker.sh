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
hpc_worker=(bash -c '<container.sh>' container docker '' 'SLURM_*|SLURMD_*|SUBMITIT_*|HPC_*|PMI*|OMPI_*|PRTE_*|MPI_*|PALS_*|CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|CUDA_LAUNCH_BLOCKING|CUDA_MODULE_LOADING|CUBLAS_*|ROCR_VISIBLE_DEVICES|HIP_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|ZE_AFFINITY_MASK|NCCL_*|RCCL_*|GLOO_*|UCX_*|FI_*|HSA_*|MIOPEN_*|OMP_*|GOMP_*|KMP_*|MKL_*|OPENBLAS_*|NUMEXPR_*|TORCH*|PYTORCH_*|TRITON_*|DEEPSPEED_*|WANDB_*|MLFLOW_*|HF_*|http_proxy|https_proxy|no_proxy|HTTP_PROXY|HTTPS_PROXY|NO_PROXY|LANG|LC_*|TZ|TERM|USER|LOGNAME|PYTHONPATH|PYTHONNOUSERSITE|PYTHONHASHSEED|NCCL_SOCKET_IFNAME' docker run --rm --log-driver=none --network=host --ipc=host --pid=host --workdir=/project --user=UID:GID --env=HOME=/tmp/hpc-home-UID --volume=/tmp:/tmp --volume=/project:/project --volume=/data:/in:ro --ulimit=memlock=-1 --gpus=all --further --entrypoint=python3 project:1)
hpc_task=hpc.task.entry
<probe.sh>

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /project/runs/out/submitit/%j_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=16 "${hpc_worker[@]}" -u -m hpc.submit.payload "$hpc_sweep" "$hpc_point" owner


# teardown
<epilogue.sh>