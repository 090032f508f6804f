"""Another user of this machine, who is up to no good."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.conftest import ROOT, clean_environment

NAME = "nobody"
PROGRAM = ROOT / "tests" / "programs" / "stranger.py"


BECOME = ("setpriv", f"--reuid={NAME}", "--clear-groups", "--no-new-privs")
"""The group stays root's, because a root that has its Python at home lets its group in and nobody else."""


def why_there_is_none() -> str:
    """What keeps this process from being another user for a while, or ""."""
    if os.getuid() or not shutil.which("setpriv"):
        return "only root can become another user, and with setpriv"
    done = subprocess.run([*BECOME, sys.executable, "-c", f"open({str(PROGRAM)!r})"], capture_output=True, check=False)
    return f"{NAME} cannot read this program" if done.returncode else ""


@contextmanager
def stranger(*words: object, place: Sequence[str] = ()) -> Iterator[None]:
    """Let `tests/programs/stranger.py` get to where it says that it is ready; it stays until the end.

    Args:
        words: Its arguments.
        place: The words that, put before a command, enter another host.
    """
    command = [*place, *BECOME, sys.executable, str(PROGRAM), *map(str, words)]
    environ = clean_environment(HOME="/", TORCH_CPP_LOG_LEVEL="ERROR", PYTHONDONTWRITEBYTECODE="1")
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.stdin.close()
            process.stdin = None
            process.wait(60)
