# Starts a program in a container on this node. Arguments: the runtime, its image where that is a file, the variables
# that go inside as one pattern, and the command line of the runtime, which becomes this process: signals arrive.
hpc_runtime=$1 hpc_image=$2 hpc_names=$3
shift 3
hpc_refuse() {
    echo "hpc: $1" >&2
    exit 78
}
if [ "$1" = apptainer ] && ! type -P apptainer >/dev/null && type -P singularity >/dev/null; then
    set -- singularity "${@:2}" # its name until 2021, and at many sites
fi
hpc_program=$(type -P "$1") ||
    hpc_refuse "container=$hpc_runtime needs $1 on PATH, but node $(uname -n) has none: load its module in cluster.setup, or ask for nodes that have it."
[ -z "$hpc_image" ] || [ -r "$hpc_image" ] ||
    hpc_refuse "container.image must be readable on every node, but $hpc_image is not on node $(uname -n): put it on a file system that the nodes share."

hpc_options=()
case $hpc_runtime in
docker) # its daemon is outside the job, where the job's numbers of GPUs mean others
    if [[ " $* " == *" --gpus=all "* ]]; then
        hpc_gpus=$(nvidia-smi ${CUDA_VISIBLE_DEVICES:+--id="$CUDA_VISIBLE_DEVICES"} --query-gpu=uuid --format=csv,noheader 2>/dev/null | paste -sd,)
        [ -n "$hpc_gpus" ] || hpc_refuse "container=docker needs nvidia-smi to tell the job's GPUs on node $(uname -n), but it tells none: set container.gpus=none, or choose another runtime."
        set -- "${@/#--gpus=all/--gpus=\"device=$hpc_gpus\"}"
        unset CUDA_VISIBLE_DEVICES
    fi
    ;;
apptainer)
    export APPTAINER_NO_EVAL=1 SINGULARITY_NO_EVAL=1 # or its shell would read $ and quotes in the values below
    ;;
charliecloud)
    export USER=${USER:-$(id -un)} # ch-run asks for it
    unset TMPDIR                   # or it would be the container's /tmp
    [ -d "$hpc_image" ] && [ ! -e "$hpc_image/ch/environment" ] || hpc_options+=(--set-env)
    ! "$hpc_program" --help 2>&1 | grep -q -e --write-fake || hpc_options+=(--write-fake) # makes mount points, since 0.34
    ;;
esac
for hpc_name in $(compgen -e); do
    if [[ $hpc_name != @($hpc_names) ]]; then
        [ "$hpc_runtime" != charliecloud ] || unset "$hpc_name"
        continue
    fi
    case $hpc_runtime in
    apptainer) export "${1^^}ENV_$hpc_name=${!hpc_name}" ;;
    podman | docker) hpc_options+=("--env=$hpc_name") ;;
    esac
done
if [ "$hpc_runtime" = charliecloud ]; then
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin # the image's, unless it has one of its own
    exec "$hpc_program" "${hpc_options[@]}" "${@:2}"
fi
exec "$hpc_program" "$2" "${hpc_options[@]}" "${@:3}"
