"""Where the configuration groups, the batch-script fragments and the recipes of images lie, and a run by default."""

from __future__ import annotations

import sys
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


def default_run_dir() -> str:
    """The run_dir of a config that names none: by the script, module or package that runs, `runs/train` for train.py.

    In a notebook, and where Python reads its program from standard input, it is `runs/run`.
    """
    path = Path(getattr(sys.modules.get("__main__"), "__file__", None) or "").absolute()
    if not path.is_file():
        return "runs/run"
    return f"runs/{path.parent.name if path.stem == '__main__' else path.stem}"
