"""From composed configs to frozen points: resolved, checked, independent of every file they came from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hpc.config import Settings, as_config, sentence, settings_of
from hpc.config.limits import CONTROL
from hpc.config.secrets import check_visible, masked_override
from hpc.errors import ConfigurationError
from hpc.paths import default_run_dir
from hpc.run.directory import not_writable
from hpc.run.point import Point
from hpc.run.points import Sweep
from hpc.say import each
from hpc.submit.compose import Composer
from hpc.submit.merge import numbers
from hpc.submit.named_files import keep_files
from hpc.submit.options import check_options
from hpc.submit.resolve import known_to_hydra, resolved, set_run_directory
from hpc.submit.snapshot import code_of
from hpc.submit.srun import check_srun
from hpc.world.launchers import LAUNCHERS

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
LONGEST_NAME = 255
"""Bytes in one name of a path, on every file system that is in use."""
SECTIONS = ("hardware", "cluster", "container", "strategy", "runtime", "checkpoint", "launch", "experiment")
"""What hpc reads of a config, besides run_dir and seed."""


def freeze(directory: Path, composer: Composer, overrides: Sequence[Sequence[str]]) -> Sweep:
    """Compose, resolve and check every point; they are numbered from 0, or as the sweep has them that is there.

    Nothing is written: see `Sweep.write`. Each point is frozen before the next one is composed, because what
    `${hydra:job.num}` means is one value for the whole process.

    Args:
        directory: The sweep's; see `run_directory`.
        composer: Of its points.
        overrides: Of each point, as typed.

    Raises:
        ConfigurationError: A config is not valid, or there are no configs.
        LoadError: The directory holds a sweep whose files are damaged.
    """
    if not overrides:
        raise ConfigurationError("The sweep must have at least one point, but one of its overrides has no value.")
    for character in r"%\\":
        if character in str(directory):
            raise ConfigurationError(
                f"run_dir must not have {character} in it, because Slurm's names of log files give it a meaning of "
                f"its own, but is {directory}."
            )
    checked = _Checked()
    points = []
    known = numbers(directory, overrides)
    for position, typed in enumerate(each(overrides, f"Composing {len(overrides)} points")):
        number = known[position]
        with _naming(position, overrides):
            config, hydra = composer.compose(number, typed, more=len(overrides) > 1)
            points.append(checked.point(str(number), typed, config, hydra))
    files = keep_files(directory, points)
    sweep = Sweep(directory, tuple(points), replace(code_of(points), files=files))
    len(sweep.lines)  # what cannot be written down is refused before anything is
    return sweep


def freeze_point(directory: Path, name: str, config: DictConfig, overrides: Sequence[str] = ()) -> Point:
    """Resolve one config, and give it its own run directory.

    Args:
        directory: The sweep's; see `run_directory`.
        name: The point's, below it; "." where the point is the whole run.
        config: As Hydra composed it.
        overrides: What was typed to get it.

    Raises:
        ConfigurationError: The config is not valid, or names no training function.
    """
    set_run_directory(config, str(directory / name) if name != "." else str(directory))
    if "hydra" in config:
        HydraConfig.instance().set_config(config)  # ${hydra:...} means this point
    point = _Checked().point(name, overrides, resolved(config), known_to_hydra(config))
    point.line()  # what cannot be written down is refused before anything is
    return point


def run_directory(config: DictConfig) -> Path:
    """The directory that run_dir names, as an absolute path. `~` and `~name` are home directories.

    Raises:
        ConfigurationError: It names none.
    """
    try:
        asked = OmegaConf.select(config, "run_dir", default=default_run_dir())
    except OmegaConfBaseException as error:
        raise ConfigurationError(sentence(error)) from error
    if isinstance(asked, bool) or not isinstance(asked, (str, int, Path)) or not str(asked).strip():
        raise ConfigurationError(f"run_dir must be the name of a directory, but is {_shown(asked)}.")
    if not CONTROL.isdisjoint(str(asked)):
        raise ConfigurationError(f"run_dir must be one line without control characters, but is {str(asked)!r}.")
    if URL.match(str(asked)):
        raise ConfigurationError(f"run_dir must be a directory that all nodes see, but is {asked}.")
    try:
        directory = Path(str(asked)).expanduser().absolute()
        long = [part for part in directory.parts if len(part.encode()) > LONGEST_NAME]
    except (RuntimeError, UnicodeError) as error:  # there is no such user, or these are not characters
        raise ConfigurationError(f"run_dir must be the name of a directory, but is {asked!r}: {error}") from error
    if long:
        raise ConfigurationError(
            f"run_dir must have names of at most {LONGEST_NAME} bytes, but {long[0][:20]}… has {len(long[0].encode())}."
        )
    _check_place(directory)
    return directory


def _check_place(directory: Path) -> None:
    """Before training has been imported and anything was written: files cannot hold directories."""
    for path in (directory, *directory.parents):
        try:
            if path.is_dir():
                return
        except OSError as error:  # too long a path, or a directory that one may not look into
            raise not_writable(path, error) from error
        if os.path.lexists(path):
            kind = "a link that leads nowhere" if path.is_symlink() else "a file"
            raise ConfigurationError(f"run_dir must be a writable directory, but {path} is {kind}.")


def _shown(value: Any) -> str:
    return "null" if value is None else "empty" if value == "" else str(value)


class _Checked:
    """Makes points whose settings are checked; settings that are alike are built once."""

    def __init__(self) -> None:
        self._settings: dict[str, Settings] = {}

    def point(self, name: str, overrides: Sequence[str], config: dict[Any, Any], hydra: dict[str, Any]) -> Point:
        point = Point(name, tuple(overrides), config, hydra, self._settings_of(config))
        _check(point)
        return point

    def _settings_of(self, config: dict[Any, Any]) -> Settings:
        """As `settings_of` builds them; run_dir and seed, in which points differ, are set in a copy where they may."""
        run_dir, seed = config.get("run_dir"), config.get("seed", Settings.seed)
        if not isinstance(run_dir, str) or not CONTROL.isdisjoint(run_dir) or type(seed) is not int or seed < 0:
            return _built(config)
        key = repr([config.get(section, ...) for section in SECTIONS])
        if key not in self._settings:
            self._settings[key] = _built(config)
        return replace(self._settings[key], run_dir=run_dir, seed=seed)


def _built(config: dict[Any, Any]) -> Settings:
    settings = settings_of(as_config(config))
    check_options(settings.cluster)
    check_srun(settings)
    return settings


def _check(point: Point) -> None:
    if not point.settings.experiment.target:
        raise ConfigurationError(
            "experiment.target must name the training function, such as my_project.train.train, but is missing."
        )
    launcher = point.settings.runtime.launcher
    known = ("auto", *(row.name for row in LAUNCHERS))
    if launcher not in ("", *known):
        raise ConfigurationError(f"runtime.launcher must be one of {', '.join(known)}, but is {launcher}.")
    steps = point.config.get("steps")  # the training function's own; but a number of steps is never negative
    if isinstance(steps, int) and steps < 0:
        raise ConfigurationError(f"steps must be at least 0, but is {steps}.")
    check_visible(point.config, point.secrets)


@contextmanager
def _naming(number: int, overrides: Sequence[Sequence[str]]) -> Iterator[None]:
    """Say which of several points an error is about, by what is typed for this one and not for all."""
    try:
        yield
    except (ConfigurationError, HydraException, OmegaConfBaseException) as error:
        if len(overrides) == 1:
            raise
        own = [masked_override(text) for text in overrides[number] if not all(text in other for other in overrides)]
        text = str(error) if isinstance(error, ConfigurationError) else sentence(error)
        raise ConfigurationError(f"Point {number} ({' '.join(own)}): {text}") from error
