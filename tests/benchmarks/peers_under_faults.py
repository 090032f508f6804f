"""What do Lightning and submitit do under twelve faults of Slurm, and what does hpc?

    python -m tests.benchmarks.peers_under_faults [DIRECTORY] [FAULT ...] [LIBRARY ...]

Starts a Slurm, does each fault to the same training with each library, four at a time, and prints a table. Peers are
installed into a virtual environment in DIRECTORY, in which answers are kept as well: what has been tried is not tried
again. Without numbers all faults are tried, without names all libraries.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

from hpc.testing.cluster import ClusterOptions, SlurmCluster
from hpc.testing.faults import Faults
from tests.benchmarks.peer_environment import install_peers, run_with_peers
from tests.benchmarks.peer_faults import FAULTS, Fault
from tests.benchmarks.peer_jobs import LIBRARIES, Library
from tests.benchmarks.peer_trial import Outcome, Trial
from tests.programs.loops_of_others.problem import RANKS, Conditions

PACKAGES = ("lightning", "submitit", "accelerate", "torchdata")
VERSIONS = "import sys, importlib.metadata as m; print(', '.join(f'{name} {m.version(name)}' for name in sys.argv[1:]))"
AT_ONCE = 4
NODES = 6
OPTIONS = ClusterOptions(nodes=NODES, gpus_per_node=0, cpus_per_node=RANKS, extra_conf=("MinJobAge=3600",))
"""A job fills a node, so that what is done to one leaves the others alone."""
DISK = threading.Lock()
"""There is one small disk."""


def main(directory: Path, numbers: list[int], names: list[str]) -> str:
    """Try what has not been tried; returns the table of everything that has."""
    python = install_peers(directory / "peers", PACKAGES)
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        place = Path(name)
        with SlurmCluster(place / "slurm", OPTIONS) as cluster, ThreadPoolExecutor(AT_ONCE) as pool:
            kinds = [kind for kind in LIBRARIES if not names or kind.name in names]
            goldens = list(pool.map(lambda kind: golden(kind(cluster, python, place / kind.name / "golden")), kinds))
            chosen = [fault for fault in FAULTS if not numbers or fault.number in numbers]
            for fault in sorted(chosen, key=lambda fault: fault.is_on_small_disk):  # these wait for each other
                for kind, result in zip(kinds, goldens, strict=True):
                    library = kind(cluster, python, place / kind.name / str(fault.number))
                    pool.submit(tried, directory, fault, library, result)
    versions = run_with_peers(python, "-c", VERSIONS, "torch", *PACKAGES).strip()
    return f"{date.today()}: {versions}.\n\n{table(directory)}"


def golden(library: Library) -> Path:
    """The result of a run that nobody disturbs."""
    trial = Trial(library, [conditions(library, library.place, 0)], library.place / "result.pt")
    trial.submit()
    trial.wait(lambda: trial.result().exists(), "the undisturbed run does not finish")
    return trial.result()


def conditions(library: Library, run: Path, task: int) -> Conditions:
    """The usual ones."""
    own = f"run_{task}" if library.name != "hpc" else "run"  # a sweep has one directory, with the points in it
    return Conditions(str(run / own), str(library.place / f"trace_{task}"), signal=int(library.signal))


def tried(directory: Path, fault: Fault, library: Library, golden: Path) -> None:
    """One cell of the table, unless it is known; kept in a file."""
    kept = directory / "answers" / f"{fault.number}-{library.name}.json"
    if kept.exists():
        return
    run = library.cluster.small_disk / library.name if fault.is_on_small_disk else library.place
    tasks = [replace(conditions(library, run, number), **fault.conditions) for number in range(fault.tasks)]
    trial = Trial(library, tasks, golden)
    try:
        with DISK if fault.is_on_small_disk else nullcontext(), Faults(library.cluster) as faults:
            trial.submit()
            outcome = fault.act(trial, faults)
    except Exception:  # what goes wrong here is no answer, and the other cells are wanted
        traceback.print_exc()
        return
    print(f"{fault.number:3} {fault.title:45} {library.name:10} {outcome}", flush=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(asdict(outcome)))


def table(directory: Path) -> str:
    """Every fault and library; what was not tried says so."""
    head = ["fault", *(kind.name for kind in LIBRARIES)]
    rows = [
        [f"{fault.number} {fault.title}", *(cell(directory, fault, kind.name) for kind in LIBRARIES)]
        for fault in FAULTS
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def cell(directory: Path, fault: Fault, name: str) -> str:
    """What became of one run."""
    kept = directory / "answers" / f"{fault.number}-{name}.json"
    if not kept.exists():
        return "not run"
    outcome = Outcome(**json.loads(kept.read_text()))
    lost = f"{outcome.lost} {'step' if outcome.lost == 1 else 'steps'} lost" if outcome.lost is not None else ""
    equal = {True: "bitwise equal", False: "**not equal**", None: ""}[outcome.equal]
    return "; ".join(part for part in (outcome.survived, lost, equal, outcome.note.strip()) if part)


if __name__ == "__main__":
    words = sys.argv[1:]
    chosen = (
        [int(word) for word in words if word.isdigit()],
        [word for word in words if word in {kind.name for kind in LIBRARIES}],
    )
    with tempfile.TemporaryDirectory() as temporary:
        where = [Path(word) for word in words if not word.isdigit() and word not in chosen[1]]
        print(main(where[0] if where else Path(temporary), *chosen))
