"""Where the configuration groups and the batch-script fragments and the recipes of images lie."""

from __future__ import annotations

from pathlib import Path


def _find(name: str) -> Path:
    """A wheel carries the directory inside the package; a checkout has it beside the package."""
    package = Path(__file__).parent
    bundled = package / name
    return bundled if bundled.is_dir() else package.parent / name


PACKAGE_DIR = Path(__file__).parent
CONF_DIR = _find("conf")
IMAGE_DIR = _find("images")
TEMPLATE_DIR = _find("slurm_templates")
