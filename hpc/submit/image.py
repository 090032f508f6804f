"""What is an image for jobs made from: a recipe, and the files beside it.

Dockerfile, project.def    over which base image; both run install.sh
hpc/                       this hpc as it is installed here, with its metadata, so that pip knows it is there
requirements.txt           what hpc needs
project/                   the files that git tracks, or would track: no data, no runs
"""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from hpc.errors import ConfigurationError
from hpc.paths import CONF_DIR, IMAGE_DIR, PACKAGE_DIR, TEMPLATE_DIR
from hpc.submit.base_image import base_image
from hpc.submit.tree import LINK, Tree, git_root, git_tree, plain_tree

MOST_FILES = 20_000
FROM = {"Dockerfile": "ARG BASE=", "project.def": "From: "}
"""What stands before the name of the base image."""


def recipe(name: str, base: str | None) -> str:
    """The text of a recipe.

    Args:
        name: Dockerfile or project.def.
        base: The image to start from; None for the one of the installed torch.

    Raises:
        ConfigurationError: No image is known for the installed torch.
    """
    told = FROM[name]
    lines = (IMAGE_DIR / name).read_text().splitlines(keepends=True)
    return "".join(f"{told}{base or base_image()}\n" if line.startswith(told) else line for line in lines)


def write_context(directory: Path, project: Path, base: str | None) -> None:
    """Everything that a tool needs to build the image.

    Args:
        directory: Empty.
        project: Its directory, or one inside it.
        base: See `recipe`.

    Raises:
        ConfigurationError: hpc is not installed, git cannot say what the project's files are, or there are too many.
        OSError: The file system says no.
    """
    for name in FROM:
        (directory / name).write_text(recipe(name, base))
    shutil.copy(IMAGE_DIR / "install.sh", directory)
    (directory / "requirements.txt").write_text("".join(f"{each}\n" for each in _requirements()))
    _copy_hpc(directory / "hpc")
    (directory / "project").mkdir()
    tree = _tree(project)
    if not (tree.root / "hpc" / "submit" / "image.py").exists():  # it is hpc itself
        _copy_tree(tree, directory / "project")


def _requirements() -> list[str]:
    try:
        found = distribution("hpc").requires or []
    except PackageNotFoundError as error:
        raise ConfigurationError("hpc must be installed to go into an image, but is not: `pip install` it.") from error
    return [each for each in found if "extra ==" not in each]


def _copy_hpc(directory: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE_DIR, directory / "hpc", ignore=ignored)
    shutil.copytree(PACKAGE_DIR.parent / "hydra_plugins" / "hpc", directory / "hydra_plugins" / "hpc", ignore=ignored)
    for data in (CONF_DIR, TEMPLATE_DIR, IMAGE_DIR):
        shutil.copytree(data, directory / "hpc" / data.name, dirs_exist_ok=True)
    found = distribution("hpc")
    metadata = directory / f"hpc-{found.version}.dist-info"
    metadata.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (metadata / name).write_text(found.read_text(name) or "")


def _tree(project: Path) -> Tree:
    root = git_root(project)
    tree = plain_tree(project.resolve(), MOST_FILES) if root is None else git_tree(root)
    if len(tree.files) > MOST_FILES:
        raise ConfigurationError(
            f"The project in {tree.root} must have at most {MOST_FILES} files to go into an image, but has more: name "
            "in .gitignore what is no code."
        )
    return tree


def _copy_tree(tree: Tree, directory: Path) -> None:
    """Links are left out: what git ignores is data."""
    for path, file in tree.files.items():
        if file.mode != LINK:
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tree.root / path, target)
