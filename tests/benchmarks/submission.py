"""How long does it take to submit a sweep, and how much of that is Hydra's own composing?

Every figure is the wall time of a whole process, from the shell's view. `sbatch` is an executable that records and
answers at once, so the scheduler's own time is not in it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.figures import ratio, spread, table
from tests.conftest import COMMAND, ROOT, SBATCH, SINFO, FakeSlurm, clean_environment

POINTS = 100
ROUNDS = 5
HYDRA_ALONE = Path(__file__).with_name("hydra_alone.py")


@dataclass(frozen=True)
class Submission:
    """One `python run.py -m`.

    Args:
        seconds: Wall time of the process.
        sbatch_calls: How often sbatch was started.
        files: Left in the sweep's directory.
    """

    seconds: float
    sbatch_calls: int
    files: int


@dataclass(frozen=True)
class Round:
    """What was measured one right after the other."""

    many: Submission
    one: Submission
    compose_seconds: float
    multirun_seconds: float


def main() -> str:
    """Submit sweeps of 1 and of many points, and let Hydra compose as many, in turns; returns the table.

    Raises:
        RuntimeError: A sweep took another number of sbatch calls than one.
    """
    with tempfile.TemporaryDirectory() as name:
        rounds = [_round(Path(name) / str(number)) for number in range(ROUNDS)]
    if any(sweep.sbatch_calls != 1 for one_round in rounds for sweep in (one_round.many, one_round.one)):
        raise RuntimeError("A sweep over one kind of hardware must be one sbatch call, but was not.")
    return _table(rounds)


def submit(directory: Path, points: int) -> Submission:
    """Submit a sweep over seeds to a Slurm that records; `directory` must not exist."""
    slurm = recording_slurm(directory / "slurm")
    arguments = ["-m", "hardware=8xA100", f"seed=range(0,{points})", f"run_dir={directory / 'sweep'}"]
    seconds = _seconds([str(ROOT / "run.py"), *arguments], directory, slurm.environ)
    files = sum(path.is_file() for path in (directory / "sweep").rglob("*"))
    return Submission(seconds, sum(call.startswith("sbatch ") for call in slurm.calls), files)


def recording_slurm(directory: Path) -> FakeSlurm:
    """The tests' Slurm of executables, outside of pytest."""
    (directory / "bin").mkdir(parents=True)
    (directory / "scripts").mkdir()
    for name, text in (("sbatch", SBATCH), ("sinfo", COMMAND), ("scontrol", COMMAND)):
        path = directory / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    result = FakeSlurm(directory)
    result.answer("sinfo", SINFO)
    return result


def _table(rounds: list[Round]) -> str:
    many = [each.many.seconds for each in rounds]
    further = [(each.many.seconds - each.one.seconds) / (POINTS - 1) for each in rounds]
    composing, multirun = [each.compose_seconds for each in rounds], [each.multirun_seconds for each in rounds]
    rows = [
        (f"submit {POINTS} points, s", spread(many)),
        ("submit 1 point, s", spread([each.one.seconds for each in rounds])),
        ("per point, ms", spread([1000 * seconds / POINTS for seconds in many])),
        ("per further point, ms", spread([1000 * seconds for seconds in further])),
        ("sbatch calls", rounds[-1].many.sbatch_calls),
        ("files written", rounds[-1].many.files),
        (f"Hydra alone composes {POINTS} points, s", spread(composing)),
        (f"Hydra alone sweeps {POINTS} points of a task that does nothing, s", spread(multirun)),
        ("submit / compose", ratio(many, composing)),
        ("submit / sweep of nothing", ratio(many, multirun)),
    ]
    title = f"Submission: whole processes, wall time, median of {ROUNDS} rounds (and its 95 % interval)"
    return table(title, [(name, str(figure)) for name, figure in rows])


def _round(directory: Path) -> Round:
    result = Round(
        submit(directory / "many", POINTS),
        submit(directory / "one", 1),
        _hydra(directory / "compose", "compose"),
        _hydra(directory / "multirun", "multirun"),
    )
    shutil.rmtree(directory)
    return result


def _hydra(directory: Path, mode: str) -> float:
    directory.mkdir()
    overrides = ["hardware=8xA100", f"seed=range(0,{POINTS})", f"run_dir={directory / 'sweep'}"]
    return _seconds([str(HYDRA_ALONE), mode, *overrides], directory, {})


def _seconds(arguments: list[str], directory: Path, environ: dict[str, str]) -> float:
    environment = {**clean_environment(), **environ}
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=directory, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
