# A rank that cannot start will not start in another life either: one sentence, and no requeue.
if ! srun --help 2>&1 | grep -q -e --container-image; then
    echo "hpc: container=pyxis needs srun with NVIDIA's plugin, but srun on node $(uname -n) has no --container-image: choose another runtime." >&2
    exit 78
fi
if [ -n "$hpc_image" ] && [ ! -r "$hpc_image" ]; then
    echo "hpc: container.image must be readable on every node, but $hpc_image is not on node $(uname -n): put it on a file system that the nodes share." >&2
    exit 78
fi
