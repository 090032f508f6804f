"""From composed configs to frozen points: resolved, checked, independent of every file they came from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from hpc.config import sentence, settings_of
from hpc.errors import ConfigurationError
from hpc.run.points import Point, Sweep


def freeze(directory: Path, configs: Sequence[DictConfig], overrides: Sequence[Sequence[str]]) -> Sweep:
    """Resolve and check every config; the points are numbered from 0.

    Nothing is written: see `Sweep.write`.

    Raises:
        ConfigurationError: A config is not valid.
    """
    directory = directory.expanduser().absolute()
    names = [str(number) for number in range(len(configs))]
    points = [freeze_point(directory, *each) for each in zip(names, configs, overrides, strict=True)]
    return Sweep(directory, tuple(points))


def freeze_point(directory: Path, name: str, config: DictConfig, overrides: Sequence[str] = ()) -> Point:
    """Resolve one config, and give it its own run directory.

    Raises:
        ConfigurationError: The config is not valid, or names no training function.
    """
    with read_write(config), open_dict(config):
        config.run_dir = str(directory / name) if name != "." else str(directory)
    plain = _resolved(config)
    if not settings_of(plain).experiment.target:
        raise ConfigurationError(
            "experiment.target must name the training function, such as my_project.train.train, but is missing."
        )
    return Point(name, tuple(overrides), plain)


def _resolved(config: DictConfig) -> dict[str, Any]:
    """Plain values; interpolations may still point into Hydra's own part, which is left behind."""
    try:
        return {str(key): _plain(config[key]) for key in config if key != "hydra"}
    except OmegaConfBaseException as error:
        raise ConfigurationError(sentence(error)) from error


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node
