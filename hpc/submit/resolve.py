"""From a config as Hydra composed it to plain values: interpolations resolved, Hydra's own part left behind."""

from __future__ import annotations

import importlib
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException, UnsupportedInterpolationType

from hpc.config import sentence
from hpc.errors import ConfigurationError

OF_HYDRA = ("job", "mode", "overrides", "runtime")
"""What HydraConfig says of one point; the rest is about Hydra's own logging and launching."""


def set_run_directory(config: DictConfig, directory: str) -> None:
    """Give a config its own run directory, whatever it says itself; Hydra calls it the output directory."""
    with read_write(config), open_dict(config):
        config.run_dir = directory
    if "hydra" in config:
        with read_write(config.hydra):
            config.hydra.runtime.output_dir = directory


def resolved(config: DictConfig) -> dict[Any, Any]:
    """Plain values; interpolations may still point into Hydra's own part, which is left behind.

    Raises:
        ConfigurationError: A value is missing, or points nowhere.
    """
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


def known_to_hydra(config: DictConfig) -> dict[str, Any]:
    """What HydraConfig tells in a job, too.

    Raises:
        ConfigurationError: It asks for what Hydra does around a function that it calls itself.
    """
    if "hydra" not in config:
        return {}
    _check_job(config.hydra.job)
    part = OmegaConf.masked_copy(config.hydra, list(OF_HYDRA))
    known: Any = OmegaConf.to_container(part, resolve=False, enum_to_str=True)
    known["job"].pop("config", None)
    known["runtime"].pop("config_sources", None)
    return {section: values for section, values in known.items() if values is not None}


def _check_job(job: DictConfig) -> None:
    if job.chdir:
        raise ConfigurationError(
            "hydra.job.chdir must be false, because training runs where the command was typed, but is true: "
            "write below run_dir."
        )
    if job.env_set:
        raise ConfigurationError(
            f"hydra.job.env_set must be empty, but sets {', '.join(map(str, job.env_set))}: export that in your shell, "
            "or set it in cluster.environment for jobs."
        )


def plain(node: Any) -> Any:
    """A value, or everything below a node, resolved.

    Raises:
        OmegaConfBaseException: A value is missing, or points nowhere.
    """
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node


def _plain_parts(config: DictConfig) -> dict[Any, Any]:
    return {key: plain(config[key]) for key in config if key != "hydra"}


def _import_resolvers(config: DictConfig, error: UnsupportedInterpolationType) -> None:
    """A resolver of the user's own is registered where the training function is; nothing else needs that module yet."""
    target = OmegaConf.select(config, "experiment.target", throw_on_missing=False) or ""
    try:
        importlib.import_module(str(target).rpartition(".")[0] or "hpc")
    except ImportError as missing:
        raise ConfigurationError(f"{sentence(error).rstrip('.')}, which cannot be imported: {missing}.") from missing
