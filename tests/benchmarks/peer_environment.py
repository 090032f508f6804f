"""Where are the peers installed? Beside the project's own environment, when a benchmark asks for them."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.conftest import ROOT, clean_environment

PACKAGES = ("lightning-fabric", "pytorch-ignite", "idr_torch", "submitit", "accelerate")


def install_peers(directory: Path, packages: Sequence[str] = PACKAGES) -> Path:
    """A virtual environment with the peers and this interpreter's packages; returns its Python."""
    python = directory / "bin" / "python"
    if not python.exists():
        venv.create(directory, with_pip=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(directory), "platbase": str(directory)}))
    ours = [entry for entry in sys.path if entry.endswith("site-packages")]
    (site / "of_the_project.pth").write_text("\n".join(ours) + "\n")
    pinned = f"torch=={torch.__version__.partition('+')[0]}"
    subprocess.run([python, "-m", "pip", "install", "--quiet", pinned, *packages], check=True)
    return python


def run_with_peers(python: Path, *words: str, **more_environ: str) -> str:
    """What an interpreter that has the peers prints when it is given these words, and these variables.

    Raises:
        RuntimeError: It failed; carries what it said.
    """
    environ = {**clean_environment(), "PYTHONPATH": str(ROOT), "TORCH_CPP_LOG_LEVEL": "ERROR", **more_environ}
    done = subprocess.run([str(python), *words], env=environ, check=False, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout
