"""Command lines of hpc, each in a process of its own that is a fork of one which has imported Hydra already.

A process for each command line would spend its time on imports: `python -m tests.support.commands` is a server that
reads one command as a line of JSON and answers with its exit code as another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    output: str
    errors: str


class Commands:
    """A server; commands are run one after the other.

    Args:
        environ: Of every command.
        scratch: A directory for what they say.
    """

    def __init__(self, environ: Mapping[str, str], scratch: Path) -> None:
        self.scratch = scratch
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.commands"],
            cwd=Path(__file__).parents[2], env=dict(environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def run(self, arguments: Sequence[str], directory: Path, **environ: str) -> Done:
        """`hpc ARGUMENTS`, typed in a directory."""
        said = [self.scratch / f"{directory.name}.{stream}" for stream in ("out", "err")]
        order = {"arguments": list(arguments), "directory": str(directory), "said": list(map(str, said))}
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the server has no pipes")
        print(json.dumps({**order, "environ": environ}), file=self.process.stdin, flush=True)
        code = json.loads(self.process.stdout.readline())
        return Done(code, *(path.read_text(errors="replace") for path in said))


def _serve() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(_command(order))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _command(order: dict[str, Any]) -> int:
    """What `hpc` does as a program, in this fork."""
    from hpc.cli import main  # the server has imported it before

    for number, path in enumerate(order["said"], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(order["directory"])
    os.environ.update(order["environ"])
    sys.argv = ["hpc", *order["arguments"]]
    code: object = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


def _warm() -> None:
    """Import what every command does, and let Hydra look for its plugins once."""
    import submitit.slurm.slurm  # noqa: F401
    from hydra.core.plugins import Plugins

    import hpc.cli.run
    import hpc.launch.dispatch
    import hpc.submit.freeze
    import hpc.task.entry  # noqa: F401

    Plugins.instance()


if __name__ == "__main__":
    _warm()
    _serve()
