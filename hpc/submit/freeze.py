"""From composed configs to frozen points: resolved, checked, independent of every file they came from."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException, UnsupportedInterpolationType

from hpc.config import Settings, sentence
from hpc.config.limits import CONTROL
from hpc.config.secrets import check_visible
from hpc.errors import ConfigurationError
from hpc.run.points import Point, Sweep
from hpc.submit.options import check_options

LONGEST_NAME = 255
"""Bytes in one name of a path, on every file system that is in use."""
OF_HYDRA = ("job", "mode", "overrides", "runtime")
"""What HydraConfig says of one point; the rest is about Hydra's own logging and launching."""


def freeze(directory: Path, configs: Iterable[DictConfig], overrides: Sequence[Sequence[str]]) -> Sweep:
    """Resolve and check every config; the points are numbered from 0.

    Nothing is written: see `Sweep.write`. Each config is frozen before the next one is composed, because what
    `${hydra:job.num}` means is one value for the whole process.

    Raises:
        ConfigurationError: A config is not valid, or there are no configs.
    """
    if not overrides:
        raise ConfigurationError("The sweep must have at least one point, but one of its overrides has no value.")
    for character in r"%\\":
        if character in str(directory):
            raise ConfigurationError(
                f"run_dir must not have {character} in it, because Slurm's names of log files give it a meaning of "
                f"its own, but is {directory}."
            )
    pairs = zip(configs, overrides, strict=True)
    points = [freeze_point(directory, str(number), *each) for number, each in enumerate(pairs)]
    return Sweep(directory, tuple(points))


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
    with read_write(config), open_dict(config):
        config.run_dir = str(directory / name) if name != "." else str(directory)
    point = Point(name, tuple(overrides), _resolved(config), _known_to_hydra(config))
    _check(point)
    point.line()  # what cannot be written down is refused before anything is
    return point


def run_directory(config: DictConfig) -> Path:
    """The directory that run_dir names, as an absolute path. `~` and `~name` are home directories.

    Raises:
        ConfigurationError: It names none.
    """
    try:
        asked = OmegaConf.select(config, "run_dir", default=Settings.run_dir)
    except OmegaConfBaseException as error:
        raise ConfigurationError(sentence(error)) from error
    if isinstance(asked, bool) or not isinstance(asked, (str, int, Path)) or not str(asked).strip():
        raise ConfigurationError(f"run_dir must be the name of a directory, but is {_shown(asked)}.")
    if not CONTROL.isdisjoint(str(asked)):
        raise ConfigurationError(f"run_dir must be one line without control characters, but is {str(asked)!r}.")
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
        if path.exists():
            if not path.is_dir():
                raise ConfigurationError(f"run_dir must be a writable directory, but {path} is a file.")
            return


def _shown(value: Any) -> str:
    return "null" if value is None else "empty" if value == "" else str(value)


def _check(point: Point) -> None:
    if not point.settings.experiment.target:
        raise ConfigurationError(
            "experiment.target must name the training function, such as my_project.train.train, but is missing."
        )
    steps = point.config.get("steps")  # the training function's own; but a number of steps is never negative
    if isinstance(steps, int) and steps < 0:
        raise ConfigurationError(f"steps must be at least 0, but is {steps}.")
    check_options(point.settings.cluster)
    check_visible(point.config)


def _resolved(config: DictConfig) -> dict[Any, Any]:
    """Plain values; interpolations may still point into Hydra's own part, which is left behind."""
    try:
        return _plain_parts(config)
    except UnsupportedInterpolationType as error:
        _import_resolvers(config, error)
    except OmegaConfBaseException as error:
        raise ConfigurationError(sentence(error)) from error
    try:
        return _plain_parts(config)
    except OmegaConfBaseException as error:
        raise ConfigurationError(sentence(error)) from error


def _import_resolvers(config: DictConfig, error: UnsupportedInterpolationType) -> None:
    """A resolver of the user's own is registered where the training function is; nothing else needs that module yet."""
    target = OmegaConf.select(config, "experiment.target", throw_on_missing=False) or ""
    try:
        importlib.import_module(str(target).rpartition(".")[0] or "hpc")
    except ImportError as missing:
        raise ConfigurationError(f"{sentence(error).rstrip('.')}, which cannot be imported: {missing}.") from missing


def _known_to_hydra(config: DictConfig) -> dict[str, Any]:
    """What HydraConfig tells in a job, too. The point's directory is what Hydra calls the output directory."""
    if "hydra" not in config:
        return {}
    part = OmegaConf.masked_copy(config.hydra, list(OF_HYDRA))
    known: Any = OmegaConf.to_container(part, resolve=False, enum_to_str=True)
    known["job"].pop("config", None)
    known["runtime"].pop("config_sources", None)
    known["runtime"]["output_dir"] = str(config.run_dir)
    return {section: values for section, values in known.items() if values is not None}


def _plain_parts(config: DictConfig) -> dict[Any, Any]:
    return {key: _plain(config[key]) for key in config if key != "hydra"}


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node
