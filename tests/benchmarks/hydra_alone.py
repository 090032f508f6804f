"""How long does Hydra itself take for the points of a sweep? The same conf/, nothing of hpc's that does work.

Run as a script: `hydra_alone.py compose OVERRIDE...` composes each point once,
`hydra_alone.py multirun OVERRIDE...` is Hydra's own sweep, with its basic sweeper and launcher, of a task that does
nothing, and `hydra_alone.py array POINTS` composes once and sends one array of so many tasks that do nothing. The
interpreter starts and imports in all of them, as it does in `run.py`.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import hydra
from omegaconf import DictConfig

from hpc.paths import CONF_DIR

BASIC = ("hydra/sweeper=basic", "hydra/launcher=basic")


def compose(overrides: list[str]) -> None:
    """Compose every point of the product of `overrides`, where a value `range(0,n)` means n points."""
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        for point in product(*(_values(override) for override in overrides)):
            hydra.compose("config", list(point))


def multirun(overrides: list[str]) -> None:
    """Let Hydra sweep over a task that does nothing."""
    sys.argv[1:] = ["-m", *BASIC, *overrides]
    hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="config")(_nothing)()


def array(words: list[str]) -> None:
    """What no launcher on Hydra can be faster than."""
    (points,) = words
    sys.argv[1:] = []
    hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="config")(_nothing)()
    subprocess.run(["sbatch", "--hold", f"--array=0-{int(points) - 1}", "--wrap=true"], check=True)


def _nothing(config: DictConfig) -> None:
    del config


def _values(override: str) -> list[str]:
    key, _, value = override.partition("=")
    if not value.startswith("range("):
        return [override]
    first, last = value.removeprefix("range(").rstrip(")").split(",")
    return [f"{key}={number}" for number in range(int(first), int(last))]


if __name__ == "__main__":
    {"compose": compose, "multirun": multirun, "array": array}[sys.argv[1]](sys.argv[2:])
