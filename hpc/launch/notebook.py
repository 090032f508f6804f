"""Several ranks from a notebook cell: functions defined there run in fresh processes of this machine.

Fresh ones, not forks: a notebook has threads and perhaps a GPU open, and neither survives a fork. cloudpickle carries
the function over by value; torchrun starts the ranks, and ends them when one fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import torch

from hpc.environ import for_child
from hpc.errors import HpcError

CALL, RESULT, FAILURE = "call.pickle", "result.pickle", "failure.txt"


def notebook_launcher(function: Callable[..., Any], args: Sequence[Any] = (), num_processes: int | None = None) -> Any:
    """Run `function(*args)` on several ranks of this machine, showing what they print.

    Args:
        function: Makes its own Runtime. May be defined in the notebook.
        args: Anything cloudpickle takes.
        num_processes: How many ranks; one per GPU when not given, or one.

    Returns:
        What rank 0 returned; None when the run was stopped after saving: the same call goes on from there.

    Raises:
        HpcError: A rank failed; says which, and its traceback.
    """
    ranks = num_processes or torch.cuda.device_count() or 1
    with tempfile.TemporaryDirectory(prefix="hpc-notebook-") as name:
        directory = Path(name)
        (directory / CALL).write_bytes(cloudpickle.dumps((function, tuple(args))))
        code = _run_ranks(directory, ranks)
        if (directory / FAILURE).exists():
            raise HpcError((directory / FAILURE).read_text())
        if code:
            raise HpcError(f"One of the {ranks} ranks was ended with exit code {code} without an exception of its own.")
        return cloudpickle.loads((directory / RESULT).read_bytes())


def _run_ranks(directory: Path, ranks: int) -> int:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    process = subprocess.Popen(
        [sys.executable, *launcher, "-m", "hpc.task.notebook", str(directory)],
        env={
            "OMP_NUM_THREADS": "1",
            **for_child(PYTHONPATH=os.pathsep.join(entry or os.curdir for entry in sys.path)),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
        except KeyboardInterrupt:  # the ranks were told as well, and save before they leave
            process.wait()
        finally:
            process.terminate()
    return process.returncode
