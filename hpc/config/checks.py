"""How a composed config becomes values, and which values cannot be."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import cache
from string import Formatter
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from hpc.config.given import as_config, container_of, read_config
from hpc.config.limits import broken, typed
from hpc.config.schema import (
    CONTAINER_RUNTIMES,
    TRACKERS,
    CheckpointOptions,
    Cluster,
    Container,
    Experiment,
    Hardware,
    Launch,
    RuntimeOptions,
    Settings,
    StrategyOptions,
)
from hpc.config.sentences import sentence
from hpc.errors import ConfigurationError

DATED = "runs/${now:%Y-%m-%d}/${now:%H-%M-%S}-${experiment.name}"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OPTION = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
DATE = re.compile(r"\d{4}-\d\d-\d\d")
FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def settings_of(config: Any) -> Settings:
    """Read the parts hpc owns out of a composed config, filling in defaults.

    Args:
        config: As `read_config` takes it; keys that are not hpc's are ignored.

    Raises:
        ConfigurationError: A value has the wrong type, is out of its range, or contradicts another.
    """
    given = read_config(config)
    try:
        settings = _read(given)
    except OmegaConfBaseException as error:
        raise ConfigurationError(sentence(error)) from error
    wrong = broken(settings) or _wrong_together(settings)
    if wrong:
        raise ConfigurationError(wrong)
    return settings


def _read(given: DictConfig) -> Settings:
    owned = OmegaConf.masked_copy(given, [str(key) for key in _schema() if key in given])
    try:
        return _to_object(OmegaConf.merge(_schema(), owned))
    except InterpolationResolutionError:  # one of them asks for a key that is not hpc's
        return _to_object(OmegaConf.merge(_schema(), _resolved(given)))


def _resolved(given: DictConfig) -> DictConfig:
    """Hpc's parts, with the values of keys that are not its own where they ask for them."""
    whole: Any = OmegaConf.merge(OmegaConf.to_container(_schema()), given)
    parts = {key: whole[key] for key in _schema()}
    return as_config({key: container_of(part) if OmegaConf.is_config(part) else part for key, part in parts.items()})


def register_schema() -> None:
    """Make `hpc_schema` available to every defaults list, so that overrides are typed when they are composed."""
    from hydra.core.config_store import ConfigStore  # deferred: `import hpc` stays light

    sections = {
        "hardware": Hardware,
        "cluster": Cluster,
        "container": Container,
        "strategy": StrategyOptions,
        "runtime": RuntimeOptions,
        "checkpoint": CheckpointOptions,
        "launch": Launch,
        "experiment": Experiment,
    }
    # A project of one's own need not name the group to choose from it on the command line.
    groups = ["_self_", {"container": "auto"}]
    schema = OmegaConf.create({"defaults": groups, **sections, "run_dir": DATED, "seed": Settings.seed})
    ConfigStore.instance().store(name="hpc_schema", node=schema, provider="hpc")


@cache
def _schema() -> DictConfig:
    """Built once: it is most of the time that reading a config takes."""
    schema: DictConfig = OmegaConf.structured(Settings)
    return schema


def _to_object(merged: Any) -> Settings:
    if OmegaConf.is_missing(merged.experiment, "target"):
        merged.experiment.target = ""
    settings = OmegaConf.to_object(merged)
    if not isinstance(settings, Settings):
        raise ConfigurationError(f"The config must be a mapping, but is {type(settings).__name__}.")
    variables = settings.cluster.environment
    variables.update({name: typed(value) for name, value in variables.items() if isinstance(value, (bool, int, float))})
    return settings


def _wrong_together(settings: Settings) -> str:
    """The sentence about options that cannot be beside each other, or ""."""
    return (
        _wrong_hardware(settings.hardware)
        or _wrong_cluster(settings.cluster, settings.hardware)
        or _wrong_container(settings.container, settings.cluster)
        or _wrong_packing(settings)
        or _wrong_strategy(settings.strategy)
        or _wrong_trackers(settings.runtime.trackers)
        or _wrong_checkpoint(settings.checkpoint)
        or _wrong_experiment(settings.experiment)
    )


def _wrong_packing(settings: Settings) -> str:
    """Points that share a job have a share of one node each, which must be known."""
    hardware, count = settings.hardware, settings.launch.per_job
    options = [name for name, value in settings.cluster.sbatch.items() if name.startswith("gpus") and value]
    reason = ""
    if hardware.nodes > 1:
        reason = f"hardware.nodes is {hardware.nodes}, and points share one node"
    elif hardware.memory_gb == 0:
        reason = "hardware.memory_gb is 0, which is all of the node's memory for one of them"
    elif options:
        reason = f"cluster.sbatch asks for GPUs with {options[0]}, of which no share is known"
    return f"launch.per_job must be 1 for these points, but is {count}: {reason}." if reason and count > 1 else ""


def _wrong_hardware(hardware: Hardware) -> str:
    if 0 < hardware.gpus_per_node < (hardware.tasks_per_node or 1):
        return (
            f"hardware.tasks_per_node must be at most hardware.gpus_per_node ({hardware.gpus_per_node}), "
            f"so that no two ranks share a GPU, but is {hardware.tasks_per_node}."
        )
    return ""


def _wrong_cluster(cluster: Cluster, hardware: Hardware) -> str:
    seconds = hardware.time_limit_minutes * 60
    if cluster.grace_seconds is not None and cluster.grace_seconds >= seconds:
        return (
            f"cluster.grace_seconds must be below the time limit (hardware.time_limit_minutes={seconds // 60} is "
            f"{seconds} s), but is {cluster.grace_seconds}: the run would stop before its first step."
        )
    for name in cluster.environment:
        if not VARIABLE.fullmatch(name):
            return f"cluster.environment must have names of letters, digits and _, but has {name!r}."
        if not isinstance(cluster.environment[name], str):
            return f"cluster.environment.{name} must be a text, but is a {type(cluster.environment[name]).__name__}."
    if not all(map(_is_text, (*cluster.environment.values(), *cluster.srun, *cluster.setup))):
        return "cluster.environment, cluster.srun and cluster.setup must be text without null characters."
    return _wrong_gres(cluster.gres) or _wrong_rules(cluster)


def _wrong_rules(cluster: Cluster) -> str:
    """A preset that somebody has written is checked like any other setting."""
    for section, rules in (("required", cluster.required), ("forbidden", cluster.forbidden)):
        for name, rule in rules.items():
            if not OPTION.fullmatch(name):
                return f"cluster.{section} must have names of sbatch options such as gpus-per-node, but has {name!r}."
            try:
                re.compile(rule.matches or "")
            except re.error as error:
                return f"cluster.{section}.{name}.matches must be a regular expression, but is {rule.matches}: {error}."
    if cluster.checked_on and not DATE.fullmatch(cluster.checked_on):
        return f"cluster.checked_on must be a date such as 2026-11-23, but is {cluster.checked_on}."
    return ""


def _wrong_container(container: Container, cluster: Cluster) -> str:
    if container.runtime == "auto" and container.image and not cluster.container:
        return (
            f"container must be one of {', '.join(CONTAINER_RUNTIMES)} beside container.image, but is auto, and "
            "cluster.container does not say which of them this site has."
        )
    if not all(map(_is_text, (*container.mounts, *container.options))):
        return "container.mounts and container.options must be text without null characters."
    for mount in container.mounts:
        source, *further = mount.split(":")
        inside, flag, *_ = *further, "", ""
        if len(further) > 2 or not source or (further and not inside.startswith("/")) or flag not in ("", "ro", "rw"):
            return f"container.mounts must be SOURCE, SOURCE:/INSIDE or SOURCE:/INSIDE:ro, but has {mount!r}."
    return ""


def _is_text(text: str) -> bool:
    """Whether a file of a batch script can hold it."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:  # it stands for bytes that are no text
        return False


def _wrong_gres(gres: str | None) -> str:
    try:
        fields = [(name, *further) for _, name, *further in Formatter().parse(gres or "gpu") if name is not None]
    except ValueError:
        fields = [("", "", "")]
    if not all(each in (("gpu_type", "", None), ("gpus_per_node", "", None)) for each in fields):
        return f"cluster.gres may have {{gpu_type}} and {{gpus_per_node}} in braces and nothing else, but is {gres}."
    return ""


def _wrong_checkpoint(checkpoint: CheckpointOptions) -> str:
    if checkpoint.every_steps is not None and checkpoint.every_minutes is not None:
        return (
            "checkpoint.every_steps and checkpoint.every_minutes must not both be given, but are "
            f"{checkpoint.every_steps} and {checkpoint.every_minutes:g}: leave one null."
        )
    return ""


def _wrong_strategy(strategy: StrategyOptions) -> str:
    default = StrategyOptions()
    for option in fields(strategy):
        owner, usual = option.metadata.get("strategy"), getattr(default, option.name)
        value = getattr(strategy, option.name)
        if owner and value != usual and strategy.name != owner:
            return (
                f"strategy.{option.name} must be {typed(usual)} unless strategy={owner}, "
                f"but is {typed(value)} with strategy={strategy.name}."
            )
    return ""


def _wrong_trackers(names: list[str]) -> str:
    unknown = [name for name in names if name not in TRACKERS and "." not in name]
    if unknown:
        return f"runtime.trackers must hold {', '.join(TRACKERS)} or module.Class of your own, but has {unknown[0]!r}."
    return ""


def _wrong_experiment(experiment: Experiment) -> str:
    if experiment.target and not FUNCTION.fullmatch(experiment.target):
        return (
            "experiment.target must be a module and a function of it, such as my_project.train.train, "
            f"but is {experiment.target}."
        )
    if not experiment.name.strip(". "):
        return f"experiment.name must be a name, but is {experiment.name!r}."
    return ""
