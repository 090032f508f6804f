"""What does srun start for each rank of a plan: Python itself, or a container with Python in it?

In a container the command line is long, and needed twice: to see whether a rank can start at all, and for srun. It is
an array of bash, which the script sets beforehand.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from hpc.paths import TEMPLATE_DIR
from hpc.submit import runtimes
from hpc.submit.container import Box, box_of
from hpc.submit.interpreter import interpreter
from hpc.submit.plan import Plan
from hpc.submit.project import other_directories

TASK = "hpc.task.entry"
"""What a rank imports first: where this can be imported, a rank can start."""


def command(plan: Plan) -> str:
    """The words of a shell command before `-m MODULE`; `setup` comes before it in the script."""
    return interpreter(plan.sweep_directory, plan.code) if box_of(plan) is None else '"${hpc_worker[@]}"'


def srun_options(plan: Plan) -> list[str]:
    """What srun itself is told about the container."""
    box = box_of(plan)
    return [] if box is None else runtimes.srun_options(box)


def setup(plan: Plan) -> list[str]:
    """Lines of the script, after everything else that is set up: how ranks are started, and whether they can be."""
    box = box_of(plan)
    if box is None:
        return []
    return [
        "export PYTHONNOUSERSITE=1 # packages in the home directory are for the Python outside",
        f"hpc_worker=({interpreter(plan.sweep_directory, plan.code, _words(box))})",
        f"hpc_image={shlex.quote(_file(box))}" if box.runtime == "pyxis" else f"hpc_task={TASK}",
        *_template("pyxis.sh" if box.runtime == "pyxis" else "probe.sh").splitlines(),
    ]


def python_path(plan: Plan) -> str:
    """Where the task imports from, besides the interpreter's own: this directory, and what this command has.

    This directory comes first whether or not it is on sys.path, so that `hpc run` and `python run.py` send the same.
    """
    if box_of(plan) is not None:  # what is installed here is for another Python
        return ":".join(map(str, dict.fromkeys([Path.cwd(), *other_directories([])])))
    installed = (sys.prefix, sys.base_prefix)
    here = [Path.cwd(), *(Path(entry or ".").absolute() for entry in sys.path if not entry.endswith(".zip"))]
    return ":".join(str(entry) for entry in dict.fromkeys(here) if not any(map(entry.is_relative_to, installed)))


def _words(box: Box) -> list[str]:
    words = runtimes.words(box)
    if box.runtime == "pyxis":  # srun has entered the container by then
        return words
    return ["bash", "-c", _template("container.sh"), "container", box.runtime, _file(box), runtimes.passed(box), *words]


def _file(box: Box) -> str:
    return box.image if box.is_file else ""


def _template(name: str) -> str:
    return (TEMPLATE_DIR / name).read_text()
