"""What tests share: a clean environment, a Slurm made of recording executables, and ways to run the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc.world.launchers import is_a_launchers
from tests.faults.verdicts import told

COUNTS = "counts"
"""What a test gives to `record_property` is shown at the end of the session."""
ROOT = Path(__file__).parent.parent
CONFIG_HOME = tempfile.TemporaryDirectory(prefix="hpc-tests-")
"""Where the secret of the user who tests is made, instead of in the home directory."""
Completed = subprocess.CompletedProcess[str]
Run = Callable[..., Completed]
# A shell lets what it starts in the background ignore Ctrl-C, and so would every process that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have counted, and what became of every fault that was injected, or of all where all were to be.

    It stands here and not beside the faults, because with several processes the one that reports collects no tests,
    and so reads this file alone.
    """
    stats: dict[str, list[object]] = terminalreporter.stats
    reports = [each for found in stats.values() for each in found if isinstance(each, pytest.TestReport)]
    counts = {str(value) for report in reports for name, value in report.user_properties if name == COUNTS}
    everything = "injected" in terminalreporter.config.option.markexpr
    for title, lines in ((COUNTS, sorted(counts)), ("faults", [*told(reports, everything)] if reports else [])):
        if lines:
            terminalreporter.section(title)
            terminalreporter.write("\n".join([*lines, ""]))


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's, without what a launcher would have set; one thread per rank, hpc importable."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not is_a_launchers(name) and not name.startswith(("SBATCH_", "HPC_"))
    }
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": CONFIG_HOME.name, **extra}


def runner(directory: Path, *program: str) -> Run:
    """Something that runs a program with more arguments in a directory, as a person would."""

    def run(*arguments: str, environ: Mapping[str, str] | None = None, timeout: float = 300) -> Completed:
        environment = {**clean_environment(), **(environ or {})}
        return subprocess.run(
            [sys.executable, *program, *arguments],
            cwd=directory, env=environment, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def run_py(tmp_path: Path) -> Run:
    """`python run.py ...` in an empty directory."""
    return runner(tmp_path, str(ROOT / "run.py"))


@pytest.fixture
def run_hpc(tmp_path: Path) -> Run:
    """`hpc ...` in an empty directory."""
    return runner(tmp_path, "-m", "hpc")


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is submitted by a test is not noted down among the developer's own sweeps."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


@dataclass(frozen=True)
class FakeSlurm:
    """Executables that record what they are asked and answer from files.

    Args:
        directory: bin/ goes on PATH; scripts/ holds what sbatch received; calls lists every command line.
    """

    directory: Path

    @property
    def environ(self) -> dict[str, str]:
        """What puts it on PATH."""
        return {"PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}", "FAKE_SLURM": str(self.directory)}

    @property
    def scripts(self) -> list[str]:
        """What sbatch received, in order."""
        return [path.read_text() for path in sorted((self.directory / "scripts").iterdir())]

    @property
    def calls(self) -> list[str]:
        """Every command line, in order."""
        path = self.directory / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def answer(self, command: str, text: str) -> None:
        """What `command` prints from now on."""
        (self.directory / f"{command}.out").write_text(text)

    def refuse(self, text: str, after: int = 0) -> None:
        """Make sbatch fail with this on stderr, after so many submissions that work."""
        (self.directory / "refusal").write_text(text)
        (self.directory / "accepted").write_text(str(after))


COMMAND = """#!/bin/sh
echo "$(basename "$0") $*" >>"$FAKE_SLURM/calls"
cat "$FAKE_SLURM/$(basename "$0").out" 2>/dev/null
exit 0
"""
SBATCH = """#!/bin/sh
echo "sbatch $*" >>"$FAKE_SLURM/calls"
number=$(ls "$FAKE_SLURM/scripts" | wc -l)
if [ -f "$FAKE_SLURM/refusal" ] && [ "$number" -ge "$(cat "$FAKE_SLURM/accepted")" ]; then
    cat "$FAKE_SLURM/refusal" >&2
    exit 1
fi
cp "$1" "$FAKE_SLURM/scripts/$number.sh"
env >"$FAKE_SLURM/environment"
echo "Submitted batch job $((100 + number))"
"""
SINFO = "gpu*|2-00:00:00|4|128|1024000|gpu:a100:8(S:0-1)\ncpu|infinite|2|16|64000|(null)\n"


@pytest.fixture
def fake_slurm(tmp_path: Path) -> FakeSlurm:
    """A Slurm with a GPU partition of four 8xA100 nodes and a CPU partition of two."""
    directory = tmp_path / "fake slurm"
    (directory / "bin").mkdir(parents=True)
    (directory / "scripts").mkdir()
    for name in ("sinfo", "scontrol", "scancel", "squeue", "sacct", "srun", "sbatch"):
        path = directory / "bin" / name
        path.write_text(SBATCH if name == "sbatch" else COMMAND)
        path.chmod(0o755)
    result = FakeSlurm(directory)
    result.answer("sinfo", SINFO)
    result.answer("scontrol", "MaxArraySize            = 1001\n")
    return result
