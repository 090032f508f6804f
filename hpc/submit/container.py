"""Which container do a plan's ranks run in, what of the host do they see there, and can it be there at all?"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hpc.config import Settings
from hpc.errors import ConfigurationError
from hpc.submit.base_image import base_image
from hpc.submit.plan import Plan

TEMPORARY = "/tmp"
"""Where ranks of a node unpack their code, each in its own container."""
SEPARATORS = frozenset(":,\"'\\")
"""Characters that some runtime gives a meaning of its own in a path to mount."""
AMD = re.compile(r"mi\d{2,3}|amd|gfx", re.IGNORECASE)
FILE = re.compile(r"^[./~]|\.(sif|simg|sqsh|squashfs|sqfs)$")
"""An image that is no name in a registry; a name never begins or ends so."""


BY_NAME = ("podman", "docker")
"""Runtimes that keep images in a storage of their own."""


@dataclass(frozen=True)
class Mount:
    """Something of the host that is seen inside.

    Args:
        source: An absolute path.
        inside: Where it is seen.
        read_only: Whether it cannot be written there.
    """

    source: str
    inside: str
    read_only: bool = False

    def covers(self, other: Mount) -> bool:
        """Whether the other one is seen already: it lies below this one, inside as outside."""
        below = Path(other.source).is_relative_to(self.source)
        return below and self.source == self.inside and other.source == other.inside and not self.read_only


@dataclass(frozen=True)
class Box:
    """The container of a plan.

    Args:
        runtime: One of `hpc.config.schema.CONTAINER_RUNTIMES`.
        image: The absolute path of a file or directory, or a name.
        is_file: Which of the two.
        python: The interpreter inside.
        mounts: In the order in which they are made.
        working_directory: As outside.
        gpus: nvidia, amd or "".
        variables: Names that cluster.environment sets.
        options: Further ones of the runtime.
        user: Number of the user and of the group; (0, 0) for root.
    """

    runtime: str
    image: str
    is_file: bool
    python: str
    mounts: tuple[Mount, ...]
    working_directory: str
    gpus: str
    variables: tuple[str, ...]
    options: tuple[str, ...]
    user: tuple[int, int]


def runtime_of(settings: Settings | Plan) -> str | None:
    """Who starts the container; None where there is none."""
    container = settings.container
    if container.runtime == "auto":
        return settings.cluster.container if container.image else None
    return None if container.runtime == "none" else container.runtime


def box_of(plan: Plan) -> Box | None:
    """The container of a plan's ranks, or None.

    Raises:
        ConfigurationError: A path cannot be mounted, or no image is known for the installed torch.
    """
    runtime, container = runtime_of(plan), plan.container
    if runtime is None:
        return None
    image = container.image or _default_image(plan)
    is_file = FILE.search(image) is not None or Path(image).is_dir()
    if is_file and runtime in BY_NAME:
        raise ConfigurationError(f"container.image must be the name of an image for {runtime}, but {image} is a file.")
    return Box(
        runtime=runtime,
        image=_absolute(image) if is_file else image,
        is_file=is_file,
        python=container.python,
        mounts=_mounts(plan),
        working_directory=str(Path.cwd()),
        gpus=_gpus(plan),
        variables=tuple(plan.cluster.environment),
        options=tuple(container.options),
        user=(os.getuid(), os.getgid()),
    )


def _default_image(plan: Plan) -> str:
    if _gpus(plan) == "amd":
        raise ConfigurationError("container.image must be given for AMD's GPUs: rocm/pytorch has images for them.")
    return base_image()


def check_container(plan: Plan) -> None:
    """Look at what must be on this machine before anything is submitted; the runtime need not be.

    Raises:
        ConfigurationError: A file is missing, or cannot be mounted.
    """
    box = box_of(plan)
    if box is None:
        return
    if box.is_file and not Path(box.image).exists():
        raise ConfigurationError(
            f"container.image must be a file or directory that is there, or a name in a registry, but {box.image} is "
            "not there."
        )
    for mount in map(_mount, plan.container.mounts):
        if not Path(mount.source).exists():
            raise ConfigurationError(
                f"container.mounts must name what is there, but {mount.source} is not; what only compute nodes have is "
                "mounted by container.options."
            )


def check_no_container(settings: Settings) -> None:
    """Ranks of this machine run in no container but the one that this process is in.

    Raises:
        ConfigurationError: One is asked for.
    """
    runtime = runtime_of(settings)
    if runtime is not None:
        raise ConfigurationError(
            f"container must be none on this machine, but is {runtime}, which only jobs in Slurm are started in: add "
            "container=none, or start the whole command in the container."
        )


def _mounts(plan: Plan) -> tuple[Mount, ...]:
    """The user's own last, so that they win; what is seen already is left out."""
    always = [Path(TEMPORARY), Path.cwd(), plan.sweep_directory]
    found: list[Mount] = []
    for path in always:
        mount = Mount(str(path), str(path))
        if str(path) != "/" and not any(each.covers(mount) for each in found):
            found = [each for each in found if not mount.covers(each)] + [mount]
    found += [each for each in map(_mount, plan.container.mounts) if not any(other.covers(each) for other in found)]
    for mount in found:
        _check_mount(mount, runtime_of(plan))
    return tuple(found)


def _mount(text: str) -> Mount:
    source, _, rest = text.partition(":")
    inside, _, flag = rest.partition(":")
    source = _absolute(source)
    return Mount(source, inside or source, flag == "ro")


def _absolute(path: str) -> str:
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError as error:
        raise ConfigurationError(f"container must name paths that exist, but has {path}: {error}") from error


def _check_mount(mount: Mount, runtime: str | None) -> None:
    if mount.read_only and runtime == "charliecloud":
        raise ConfigurationError(
            f"container.mounts must be without :ro for charliecloud, which cannot do that, but has {mount.source}."
        )
    for path in (mount.source, mount.inside):
        if runtime == "pyxis" and len(path.split()) > 1:
            raise ConfigurationError(
                "run_dir, the working directory and container.mounts must be without blanks for pyxis, which writes "
                f"them into a table of mounts, but there is {path}."
            )
        if not SEPARATORS.isdisjoint(path):
            raise ConfigurationError(
                "run_dir, the working directory and container.mounts must be without any of : , \" ' \\ where a "
                f"container is used, but there is {path}."
            )


def _gpus(plan: Plan) -> str:
    asked, sbatch = plan.container.gpus, plan.cluster.sbatch
    if asked != "auto":
        return "" if asked == "none" else asked
    if not plan.hardware.gpus_per_node and not any(str(name).startswith("gpu") for name in sbatch):
        return ""
    return "amd" if AMD.search(plan.hardware.gpu_type or "") else "nvidia"
