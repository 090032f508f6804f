"""How long from pressing return until a thousand points are queued, for hydra-submitit-launcher, for us, and at best?

    python -m tests.benchmarks.sweeps [POINTS] [ROUNDS]

At best is one interpreter that imports Hydra, composes once and calls sbatch once. All three are taken in turns, from
the start of the process until the last sbatch has answered, on a Slurm of the tests' own where one can be started, and
else against an sbatch that only answers. The jobs are held, and cancelled.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpc.testing.cluster import SlurmCluster
from hpc.testing.requirements import reason_no_cluster_starts_here
from tests.benchmarks.figures import conditions, ratio, spread, table
from tests.benchmarks.peer_environment import install_peers
from tests.benchmarks.submission import HYDRA_ALONE, recording_slurm
from tests.conftest import ROOT, clean_environment

PEER = "hydra-submitit-launcher==1.2.0"
MANY = 10_000
LONGEST_SECONDS = 1800
SBATCH = """#!/bin/sh
"{sbatch}" "$@"
code=$?
date +%s.%N >>"$ANSWERED"
exit $code
"""
PEER_PROGRAM = """
import sys
import hydra
from hpc.paths import CONF_DIR
hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="config")(lambda config: None)()
"""


@dataclass(frozen=True)
class Queued:
    """What it took.

    Args:
        seconds: From the start of the process until the last sbatch had answered.
        files: Left behind by then, or when the process has ended.
        size: Of them, in bytes.
        memory_mb: The most that the process had resident; 0 where it was ended before it was done.
    """

    seconds: float
    files: int
    size: int
    memory_mb: float = 0


def main(points: int, rounds: int) -> str:
    """Take turns; returns the table."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name, _slurm(Path(name)) as environ:
        peer = install_peers(Path(name) / "peer", [PEER])
        turns: list[tuple[Queued, Queued, Queued]] = []
        for number in range(rounds):
            place = Path(name) / str(number)
            turns.append(
                (
                    _queue(_peer(peer, points), place / "peer", environ),
                    _queue(_ours(points), place / "ours", environ, waits=True),
                    _queue([sys.executable, str(HYDRA_ALONE), "array", str(points)], place / "floor", environ),
                )
            )
            _cancel(environ)
        place = Path(name) / "recording"
        answers = _noting(place, {**os.environ, **recording_slurm(place / "slurm").environ}, "")
        few, many = (_queue(_ours(n), place / f"of{n}", answers, waits=True) for n in (1000, MANY))
    title = f"{points} points from return to queued, {environ['WHERE']}, median of {rounds} rounds (95 % interval)"
    return table(title, _rows(turns, points, few, many))


def _rows(turns: list[tuple[Queued, Queued, Queued]], points: int, few: Queued, many: Queued) -> list[tuple[str, str]]:
    peer, ours, floor = zip(*turns, strict=True)
    times = [[each.seconds for each in taken] for taken in (peer, ours, floor)]
    return [
        ("hydra-submitit-launcher 1.2.0, s", str(spread(times[0]))),
        ("hpc, s", str(spread(times[1]))),
        ("one interpreter, one composition, one sbatch, s", str(spread(times[2]))),
        ("hydra-submitit-launcher / hpc", str(ratio(times[0], times[1]))),
        ("hpc / at best", str(ratio(times[1], times[2]))),
        ("files", f"{peer[0].files} / {ours[0].files}"),
        ("bytes a point", f"{peer[0].size / points:.0f} / {ours[0].size / points:.0f}"),
        ("1000 points against an sbatch that only answers, s", f"{few.seconds:.2f}"),
        (f"{MANY} points against the same, s", f"{many.seconds:.2f} ({many.seconds / few.seconds:.1f} times)"),
        (f"{MANY} points: files, bytes a point", f"{many.files}, {many.size / MANY:.0f}"),
        (f"{MANY} points: most memory, MB", f"{many.memory_mb:.0f}"),
    ]


def _ours(points: int) -> list[str]:
    held = ["hardware=cpu", "+cluster.sbatch.hold=true", "run_dir=out"]
    return [sys.executable, str(ROOT / "run.py"), "-m", f"seed=range({points})", *held]


def _peer(python: Path, points: int) -> list[str]:
    """Its defaults as they are, and jobs of the same size as ours; it is handed Hydra's own sweeper and logging."""
    of_hydra = ["hydra/launcher=submitit_slurm", "hydra/sweeper=basic", "hydra.sweep.dir=out"]
    job = ["hydra.launcher.tasks_per_node=2", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=60"]
    held = "+hydra.launcher.additional_parameters={hold:true}"
    return [str(python), "-c", PEER_PROGRAM, "-m", f"seed=range({points})", "hardware=cpu", *of_hydra, *job, held]


def _queue(command: list[str], place: Path, environ: Mapping[str, str], waits: bool = False) -> Queued:
    """Run a command until sbatch has answered, or until it ends by itself.

    Raises:
        RuntimeError: It ended without having queued anything.
    """
    place.mkdir(parents=True)
    answered = place.with_suffix(".answered")
    environment = {**clean_environment(**environ), "ANSWERED": str(answered)}
    with place.with_suffix(".log").open("w") as log:
        began = time.time()
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log)
        while not answered.exists() and process.poll() is None and time.time() < began + LONGEST_SECONDS:
            time.sleep(0.05)
        if not waits:
            process.terminate()
        _, _, usage = os.wait4(process.pid, 0) if process.returncode is None else (0, 0, None)
    if not answered.exists():
        raise RuntimeError(place.with_suffix(".log").read_text())
    seconds = float(answered.read_text().split()[-1]) - began
    files = [path for path in place.rglob("*") if path.is_file()]
    memory_mb = usage.ru_maxrss / 1024 if waits and usage is not None else 0
    return Queued(seconds, len(files), sum(path.stat().st_size for path in files), memory_mb)


@contextmanager
def _slurm(directory: Path) -> Iterator[dict[str, str]]:
    """Variables under which sbatch notes when it has answered: a real one where there can be one."""
    reason = reason_no_cluster_starts_here()
    if reason is None:
        with SlurmCluster(directory / "cluster") as cluster:
            yield _noting(directory, cluster.environment, "on a real Slurm")
    else:
        slurm = recording_slurm(directory / "slurm")
        shutil.copy(slurm.directory / "bin" / "sinfo", slurm.directory / "bin" / "srun")
        yield _noting(directory, {**os.environ, **slurm.environ}, "against an sbatch that only answers")


def _noting(directory: Path, environ: Mapping[str, str], where: str) -> dict[str, str]:
    bin_directory = directory / "noting"
    bin_directory.mkdir()
    path = bin_directory / "sbatch"
    path.write_text(SBATCH.format(sbatch=shutil.which("sbatch", path=environ["PATH"])))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    kept = {name: value for name, value in environ.items() if name in ("SLURM_CONF", "FAKE_SLURM")}
    return {**kept, "PATH": f"{bin_directory}:{environ['PATH']}", "WHERE": where}


def _cancel(environ: Mapping[str, str]) -> None:
    if shutil.which("scancel"):
        subprocess.run(["scancel", "--me"], env={**os.environ, **environ}, check=False)


if __name__ == "__main__":
    print(conditions(), flush=True)
    print(main(*map(int, [*sys.argv[1:], *("1000", "3")[len(sys.argv) - 1 :]])))
