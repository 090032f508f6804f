"""How long does it take from `pip install` to a job that has finished on a cluster?

    python -m tests.benchmarks.first_job

What is typed are the lines of docs/index.md up to the first job, in a new virtual environment with a wheel of this
repository, and on a Slurm that is started for it. pip may have torch in its cache: a download takes as long
as the network makes it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hpc.testing.cluster import ClusterOptions, SlurmCluster
from tests.benchmarks.figures import conditions, table
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "index.md"
PATIENCE_SECONDS = 1200
WAIT = "until hpc status says that it has finished"


def main() -> str:
    """Type every line and look at the clock; returns the table."""
    with tempfile.TemporaryDirectory(prefix="first-") as name:
        place = Path(name)
        wheel = _built(place / "dist")
        with SlurmCluster(place / "slurm", ClusterOptions(nodes=1, gpus_per_node=0, accounting=False)) as cluster:
            bin_directory = place / "env" / "bin"
            environ = {**cluster.environment, "PATH": f"{bin_directory}:{cluster.environment['PATH']}"}
            environ = {**environ, "XDG_STATE_HOME": str(place / "state")}
            environ.pop("PYTHONPATH", None)
            taken = [
                _timed(f"{sys.executable} -m venv env", place, environ, "python -m venv env"),
                _timed(f"pip install --quiet {wheel} pytest", place, environ, "pip install WHEEL pytest"),
            ]
            cwd = place
            for line in first_lines(PAGE.read_text()):
                if line.startswith("cd "):
                    cwd /= line.removeprefix("cd ")
                    continue
                taken.append(_timed(line, cwd, environ))
            waiting = "until hpc status | grep --quiet '1 finished'; do sleep 1; done"
            taken.append(_timed(waiting, cwd, environ, WAIT))
    rows = [(line, f"{seconds:6.1f} s") for line, seconds in [*taken, ("all", sum(seconds for _, seconds in taken))]]
    return table("From pip install to a job that has finished", rows)


def first_lines(page: str) -> list[str]:
    """What a reader types, up to the first job."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    last = next(number for number, line in enumerate(lines) if " -m hardware" in line)
    return lines[: last + 1]


def _built(directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = directory.glob("*.whl")
    return wheel


def _timed(line: str, cwd: Path, environ: dict[str, str], name: str = "") -> tuple[str, float]:
    begin = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", line], cwd=cwd, env=environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"`{line}` ended with {done.returncode}: {done.stdout}{done.stderr}")
    return name or line, time.monotonic() - begin


if __name__ == "__main__":
    print(conditions(), main(), sep="\n\n")
