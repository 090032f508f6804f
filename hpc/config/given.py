"""What may a program hand over as its config, and how does it become one that OmegaConf holds, or plain values?"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import is_dataclass
from types import SimpleNamespace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hpc.config.sentences import sentence
from hpc.errors import ConfigurationError

INTERPOLATION = re.compile(r"(\\*)\$\{")


def read_config(config: Any) -> DictConfig:
    """What a program hands over as its config; objects in it that no YAML could hold stay what they are.

    Args:
        config: A DictConfig, a mapping, a dataclass, or a namespace as argparse returns it.

    Raises:
        ConfigurationError: It is none of these, or OmegaConf cannot hold it.
    """
    if isinstance(config, DictConfig):
        return config
    named = _named(config)
    if not isinstance(named, dict) and not is_dataclass(named) and not hasattr(named, "__attrs_attrs__"):
        raise ConfigurationError(
            "The config must be a mapping, a dataclass, a DictConfig or a namespace of argparse, but is a "
            f"{type(config).__name__}: OmegaConf.load reads a file, and vars(object) is a mapping."
        )
    try:
        given: DictConfig = OmegaConf.create(named, flags={"allow_objects": True})
    except OmegaConfBaseException as error:
        raise ConfigurationError(sentence(error)) from error
    return given


def _named(value: Any) -> Any:
    """Names and values as OmegaConf takes them, where they are in a namespace or another mapping than a dict."""
    if isinstance(value, (Namespace, SimpleNamespace)):
        value = vars(value)
    if not isinstance(value, Mapping) or OmegaConf.is_config(value):
        return value
    return {key: _named(each) for key, each in value.items()}


def as_config(values: Mapping[Any, Any]) -> DictConfig:
    """A config of values that are resolved already: what looks like an interpolation in one of them is text."""
    config: DictConfig = OmegaConf.create(_literal(dict(values)))
    return config


def _literal(value: Any) -> Any:
    """With a backslash before `${`; each of those that stand before it already counts twice (OmegaConf's grammar)."""
    if isinstance(value, dict):
        return {key: _literal(each) for key, each in value.items()}
    if isinstance(value, list):
        return list(map(_literal, value))
    return INTERPOLATION.sub(r"\1\1\\${", value) if isinstance(value, str) else value


def container_of(config: Any) -> Any:
    """A part of a config, with interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True)


def plain(config: Any) -> dict[str, Any]:
    """A config as mappings, sequences and numbers, with interpolations resolved."""
    container = container_of(OmegaConf.create(config))
    return {str(key): value for key, value in container.items()} if isinstance(container, dict) else {}
