"""How is Python started in a job, so that it imports the code that was submitted?"""

from __future__ import annotations

import shlex
import sys

from hpc.paths import TEMPLATE_DIR
from hpc.submit.plan import Plan


def interpreter(plan: Plan) -> str:
    """The words of a shell command before `-m MODULE`.

    They hold a short program and the archive's digest, so that nothing is trusted which lies on a disk until the job
    starts; see slurm_templates/enter.py.
    """
    python = shlex.quote(sys.executable)
    if plan.code is None or not plan.code.tree:
        return python
    program = (TEMPLATE_DIR / "enter.py").read_text()
    return shlex.join(
        [sys.executable, "-u", "-c", program, str(plan.sweep_directory / plan.code.name), plan.code.digest]
    )
