"""What many `hpc script` commands print, for the price of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import clean_environment

PROGRAM = """
import contextlib, io, json, sys
from hpc.cli import main

def answer(arguments):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["script", *arguments], standalone_mode=False)
        except SystemExit as end:
            code = end.code
    return code, out.getvalue(), err.getvalue()

print(json.dumps([answer(arguments) for arguments in json.loads(sys.argv[1])]))
"""


@dataclass(frozen=True)
class Printed:
    """What one command did."""

    code: int
    out: str
    err: str


def scripts(directory: Path, commands: Sequence[Sequence[str]]) -> list[Printed]:
    """Type `hpc script ...` for each command in a directory, where no Slurm answers, and says so at once."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        cwd=directory, env=clean_environment(SLURM_CONF=os.devnull),
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [Printed(*each) for each in json.loads(done.stdout)]
