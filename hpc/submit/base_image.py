"""Which image of pytorch/pytorch has the torch that is installed here?"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from hpc.errors import ConfigurationError

CUDA = {
    "2.6": ("12.4", "11.8", "12.6"),
    "2.7": ("12.6", "11.8", "12.8"),
    "2.8": ("12.8", "12.6", "12.9"),
    "2.9": ("12.8", "12.6", "13.0"),
    "2.10": ("12.8", "12.6", "13.0"),
    "2.11": ("13.0", "12.6", "12.8"),
    "2.12": ("13.0", "12.6", "13.2"),
    "2.13": ("13.0", "12.6", "13.2"),
}
"""Versions of CUDA that torch's releases have images for, the one of the release's own wheels first: PyTorch's
RELEASE.md (release compatibility matrix) and the tags of pytorch/pytorch, seen in November 2026."""


def base_image() -> str:
    """Its name, for NVIDIA's GPUs.

    Raises:
        ConfigurationError: torch is not installed here, or no image of this release is known.
    """
    try:
        found = version("torch")
    except PackageNotFoundError:
        found = ""
    image = image_for(found)
    if image is None:
        raise ConfigurationError(
            f"container.image must be given, because no image of pytorch/pytorch is known for torch {found or 'here'}."
        )
    return image


def image_for(torch: str) -> str | None:
    """The image of one version of torch: `2.9.1+cu128` and `2.9.1+cpu` are both in a 2.9.1 image.

    Returns:
        The name, or None where none is known.
    """
    release, _, local = torch.partition("+")
    known = CUDA.get(".".join(release.split(".")[:2]))
    if known is None or not release.replace(".", "").isdigit():
        return None
    own = f"{local[2:-1]}.{local[-1]}" if local.startswith("cu") else ""
    return f"pytorch/pytorch:{release}-cuda{own if own in known else known[0]}-cudnn9-runtime"
