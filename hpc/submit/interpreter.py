"""How is Python started in a job, so that it imports the code that was submitted?"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hpc.paths import TEMPLATE_DIR
from hpc.run.code import Code


def interpreter(sweep_directory: Path, code: Code | None, python: Sequence[str] = (sys.executable,)) -> str:
    """The words of a shell command before `-m MODULE`.

    They hold a short program and the archive's digest, so that nothing is trusted which lies on a disk until the job
    starts; see slurm_templates/enter.py.

    Args:
        sweep_directory: Where the archive lies.
        code: The submitted code; None where jobs import what lies there when they start.
        python: How Python itself is started.
    """
    if code is None or not code.tree:
        return shlex.join(python)
    program = (TEMPLATE_DIR / "enter.py").read_text()
    return shlex.join([*python, "-u", "-c", program, str(sweep_directory / code.name), code.digest])
