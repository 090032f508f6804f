"""`make matrix`: a quick part of the tests under several versions of torch and Hydra, each in its own environment.

Needs nothing but Python and pip. The environments stay in .venv-matrix/, so that a second run only tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".venv-matrix"
TESTS = ("tests/config", "tests/submit", "tests/runtime", "tests/test_say.py")
PACKAGES = ("pytest", "hypothesis", "accelerate", "psutil")
NOT_PINNED = ("torch==", "sympy==", "hydra-core==", "omegaconf==", "antlr4-python3-runtime==")
"""What the rows are about, and what those pin themselves; the other pins of constraints.txt hold in each row."""


def newest(package: str, *options: str) -> str:
    """The newest version that pip would install here."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
    answer = subprocess.run([*command, "--report", "-", *options, package], capture_output=True, text=True, check=True)
    return str(json.loads(answer.stdout)["install"][0]["metadata"]["version"])


def rows() -> list[tuple[str, str]]:
    """Pairs of torch and hydra-core: the oldest together, each neighbour once, and the newest together."""
    hydra, torch = newest("hydra-core", "--pre"), newest("torch")
    return list(dict.fromkeys([("2.6.0", "1.3.2"), ("2.13.0", "1.3.2"), ("2.13.0", hydra), (torch, hydra)]))


def environment(torch: str, hydra: str) -> Path:
    """The Python of an environment with these versions, made if it is not there yet."""
    directory = HOME / f"torch-{torch}-hydra-{hydra}"
    python, ready = directory / "bin" / "python", directory / "ready"
    if not ready.exists():
        venv.create(directory, with_pip=True, clear=True)
        pins = (ROOT / "constraints.txt").read_text().splitlines()
        constraints = directory / "constraints.txt"
        constraints.write_text("\n".join(pin for pin in pins if not pin.startswith(NOT_PINNED)) + "\n")
        wanted = [f"torch=={torch}", f"hydra-core=={hydra}", *PACKAGES, "--editable", str(ROOT)]
        command = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(constraints), *wanted]
        subprocess.run(command, check=True)
        ready.touch()
    return python


def outcome(python: Path) -> str:
    """What pytest's last line says."""
    command = [str(python), "-m", "pytest", "-q", "-m", "not gloo and not slurm and not faults", *TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", flush=True)
    return (done.stdout.strip().splitlines() or ["pytest said nothing"])[-1]


def row(torch: str, hydra: str) -> str:
    """Make the environment, run the tests, and say how it went."""
    began = time.monotonic()
    try:
        result = outcome(environment(torch, hydra))
    except subprocess.CalledProcessError as error:
        result = f"could not be installed (pip ended with {error.returncode})"
    line = f"torch {torch:<8} hydra-core {hydra:<10} {result}"
    print(f"{line}  [{time.monotonic() - began:.0f} s with the installation]", flush=True)
    return line


def main() -> int:
    """Test every row and print the table; 1 when something failed."""
    lines = [row(*each) for each in rows()]
    print("", *lines, sep="\n")
    return int(any("passed" not in line or "failed" in line or "error" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
