"""A small project that trains as it is: on this machine, and on a cluster."""

from __future__ import annotations

import os
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from hpc.errors import ConfigurationError
from hpc.files import create, make_directory, remove_made

SUFFIX = ".j2"
"""Of templates: no tool takes them for modules of ours."""


def create_project(directory: Path) -> list[Path]:
    """Write the files of a new project; nothing where one of them is there already.

    Args:
        directory: The project's; its name becomes the project's.

    Returns:
        The files, below the directory.

    Raises:
        ConfigurationError: There is such a file, or they cannot be written; nothing was.
    """
    texts = _texts(_name_of(directory))
    for path in texts:
        if os.path.lexists(directory / path):
            raise ConfigurationError(
                f"A new project must not replace anything, but {directory / path} is there: name another directory."
            )
    made: list[Path] = []
    try:
        for path, text in texts.items():
            made += [] if (directory / path).parent.is_dir() else make_directory((directory / path).parent)
            with create(directory / path) as file:
                made.append(directory / path)
                file.write(text.encode())
    except OSError as error:
        remove_made(made)
        raise ConfigurationError(
            f"A new project must lie in a directory that can be written, but {directory} is not: {error.strerror}."
        ) from error
    return list(texts)


def _texts(name: str) -> dict[Path, str]:
    loader = PackageLoader("hpc.project", "template")
    environment = Environment(
        loader=loader, undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True,
        variable_start_string="<<", variable_end_string=">>",
    )  # fmt: skip
    found = [each for each in environment.list_templates() if each.endswith(SUFFIX)]
    return {Path(each.removesuffix(SUFFIX)): environment.get_template(each).render(name=name) for each in found}


def _name_of(directory: Path) -> str:
    """As a distribution may be called."""
    words = re.findall(r"[a-z0-9]+", directory.absolute().name.lower())
    return "-".join(words) or "training"
