"""How is a program started in a container? One table, one row for each runtime.

A row gives the words that stand before the interpreter's own arguments. They are typed into a shell by
slurm_templates/container.sh, which adds the environment: see there.
"""

from __future__ import annotations

from collections.abc import Callable

from hpc.submit.container import Box, Mount

PASSED = (
    *("SLURM_*", "SLURMD_*", "SUBMITIT_*", "HPC_*", "PMI*", "OMPI_*", "PRTE_*", "MPI_*", "PALS_*"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING", "CUBLAS_*"),
    *("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"),
    *("NCCL_*", "RCCL_*", "GLOO_*", "UCX_*", "FI_*", "HSA_*", "MIOPEN_*"),
    *("OMP_*", "GOMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*"),
    *("TORCH*", "PYTORCH_*", "TRITON_*", "DEEPSPEED_*", "WANDB_*", "MLFLOW_*", "HF_*"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("LANG", "LC_*", "TZ", "TERM", "USER", "LOGNAME", "PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONHASHSEED"),
)
"""Variables that go inside: what the launcher, libraries of training and we say, proxies, and who and where one is.
Those of cluster.environment are added. What describes the host's own files stays outside."""
OF_THE_IMAGE = frozenset(("PATH", "HOME", "LD_LIBRARY_PATH", "LD_PRELOAD"))
"""Never taken from outside, whoever sets them: they name files of the host."""
Row = Callable[[Box], list[str]]


def passed(box: Box) -> str:
    """The names that go inside, as one pattern of bash."""
    return "|".join((*PASSED, *(name for name in box.variables if name not in OF_THE_IMAGE)))


def words(box: Box) -> list[str]:
    """The command line in front of the interpreter's arguments; the interpreter itself is in it."""
    return ROWS[box.runtime](box)


def srun_options(box: Box) -> list[str]:
    """Where srun itself starts the container (pyxis 0.20: srun --help)."""
    if box.runtime != "pyxis":
        return []
    named = [name for name in ("PYTHONPATH", "PYTHONNOUSERSITE", *box.variables) if name not in OF_THE_IMAGE]
    return [
        f"--container-image={box.image if box.is_file else _enroot_name(box.image)}",
        f"--container-mounts={','.join(_colons(each, always=True) for each in box.mounts)}",
        f"--container-workdir={box.working_directory}",
        f"--container-env={','.join(named)}",
        "--no-container-mount-home",
        *box.options,
    ]


def _apptainer(box: Box) -> list[str]:
    """Apptainer 1.3, SingularityCE 4.1: `apptainer exec --help`. It mounts /tmp by itself."""
    gpus = {"nvidia": ["--nv"], "amd": ["--rocm"]}.get(box.gpus, [])
    binds = [f"--bind={_colons(each)}" for each in box.mounts if each.inside != "/tmp"]
    place = ["--cleanenv", "--no-home", f"--pwd={box.working_directory}"]
    image = box.image if box.is_file or "://" in box.image else f"docker://{box.image}"
    return ["apptainer", "exec", *place, *gpus, *binds, *box.options, image, box.python]


def _podman(box: Box) -> list[str]:
    """podman-run(1) of 4.3 to 5.2: a child of this process, and in its cgroup, which is the job's.

    Podman's other manager of cgroups, systemd, moves a user's containers out of the job: to more GPUs and memory than
    it has, where Slurm cannot end them. See `getOCICgroupPath` in libpod/container_internal_linux.go.
    """
    gpus = {"nvidia": ["--device=nvidia.com/gpu=all"], "amd": ["--device=/dev/kfd", "--device=/dev/dri"]}
    user = ["--userns=keep-id", "--group-add=keep-groups"] if box.user[0] else []
    own = ["--cgroup-manager=cgroupfs", "--ulimit=host", "--security-opt=label=disable", *user]
    return ["podman", "run", *_shared(box), *own, *gpus.get(box.gpus, []), *box.options, *_entry(box)]


def _docker(box: Box) -> list[str]:
    """docker-run(1) of 20.10 to 27."""
    gpus = {"nvidia": ["--gpus=all"], "amd": ["--device=/dev/kfd", "--device=/dev/dri", "--group-add=video"]}
    return ["docker", "run", *_shared(box), "--ulimit=memlock=-1", *gpus.get(box.gpus, []), *box.options, *_entry(box)]


def _charliecloud(box: Box) -> list[str]:
    """ch-run(1) of 0.31 to 0.38. It mounts /tmp and /dev by itself; GPUs need `ch-fromhost --nvidia IMAGE` once."""
    binds = [f"--bind={each.source}:{each.inside}" for each in box.mounts if each.inside != "/tmp"]
    return ["ch-run", f"--cd={box.working_directory}", *binds, *box.options, box.image, "--", box.python]


def _pyxis(box: Box) -> list[str]:
    return [box.python]


ROWS: dict[str, Row] = {
    "apptainer": _apptainer,
    "podman": _podman,
    "docker": _docker,
    "charliecloud": _charliecloud,
    "pyxis": _pyxis,
}


def _shared(box: Box) -> list[str]:
    """Ranks of a node reach each other's memory, processes and addresses as without a container.

    Their user is who submits, whatever the image says, and what they print is Slurm's to keep.
    """
    volumes = [f"--volume={_colons(each, always=True)}" for each in box.mounts]
    user = [f"--user={box.user[0]}:{box.user[1]}", f"--env=HOME=/tmp/hpc-home-{box.user[0]}"]
    host = ["--network=host", "--ipc=host", "--pid=host"]
    return ["--rm", "--log-driver=none", *host, f"--workdir={box.working_directory}", *user, *volumes]


def _entry(box: Box) -> list[str]:
    """Not the image's own entry point, which may print, or start a shell that keeps signals to itself."""
    return [f"--entrypoint={box.python}", box.image]


def _colons(mount: Mount, always: bool = False) -> str:
    if mount.read_only:
        return f"{mount.source}:{mount.inside}:ro"
    return f"{mount.source}:{mount.inside}" if always or mount.source != mount.inside else mount.source


def _enroot_name(image: str) -> str:
    """nvcr.io/nvidia/pytorch as enroot writes it: nvcr.io#nvidia/pytorch."""
    image = image.removeprefix("docker://")
    registry, slash, rest = image.partition("/")
    return f"{registry}#{rest}" if slash and "#" not in image and ("." in registry or ":" in registry) else image
