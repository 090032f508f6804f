"""How a composed config becomes values, and which values cannot be."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from hpc.config.schema import (
    CheckpointOptions,
    Cluster,
    Experiment,
    Hardware,
    Launch,
    RuntimeOptions,
    Settings,
    StrategyOptions,
)
from hpc.errors import ConfigurationError

CHOICES: dict[str, tuple[str | int | bool | None, ...]] = {
    "cluster.scheduler": ("auto", "local", "slurm"),
    "strategy.name": ("ddp", "fsdp", "deepspeed", "single"),
    "strategy.precision": ("fp32", "bf16", "fp16"),
    "strategy.compile": (False, True, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    "strategy.zero_stage": (None, 1, 2, 3),
    "checkpoint.on_error": ("stop", "continue"),
    "checkpoint.best_mode": ("min", "max"),
    "runtime.device": ("auto", "cuda", "xla", "mps", "cpu"),
}
ONLY_OF = {
    "find_unused_parameters": "ddp",
    "shard_size": "fsdp",
    "reshard_after_forward": "fsdp",
    "cpu_offload": "fsdp",
    "zero_stage": "deepspeed",
    "deepspeed_config": "deepspeed",
}
"""Strategy options that the others would ignore."""
AT_LEAST_ONE = (
    "hardware.nodes",
    "hardware.tasks_per_node",
    "hardware.time_limit_minutes",
    "cluster.grace_seconds",
    "cluster.max_parallel_points",
    "strategy.accumulation_steps",
    "strategy.min_block_parameters",
    "strategy.shard_size",
    "runtime.log_every_steps",
    "runtime.profile.start_step",
    "runtime.profile.steps",
    "runtime.rendezvous_timeout_seconds",
    "runtime.collective_timeout_seconds",
    "runtime.max_lives_without_progress",
    "checkpoint.every_steps",
    "checkpoint.keep",
    "checkpoint.keep_every_steps",
)


def settings_of(config: DictConfig | dict[str, Any]) -> Settings:
    """Read the parts hpc owns out of a composed config, filling in defaults.

    Args:
        config: A composed config or a plain mapping; keys that are not hpc's are ignored.

    Raises:
        ConfigurationError: A value has the wrong type, is out of its range, or contradicts another.
    """
    schema = OmegaConf.structured(Settings)
    given = config if isinstance(config, DictConfig) else OmegaConf.create(config)
    try:
        owned = OmegaConf.masked_copy(given, [str(key) for key in schema if key in given])
        merged = OmegaConf.merge(schema, owned)
        _check_values(merged)
        settings = _to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigurationError(sentence(error)) from error
    _check_hardware(settings.hardware)
    _check_strategy(settings.strategy)
    _check_checkpoint(settings.checkpoint)
    return settings


def plain(config: Any) -> dict[str, Any]:
    """A config as mappings, sequences and numbers, with interpolations resolved."""
    container = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    return {str(key): value for key, value in container.items()} if isinstance(container, dict) else {}


def sentence(error: Exception) -> str:
    """One sentence of what OmegaConf or Hydra says in several lines: the setting, what it is, what it may be."""
    missing, options = (getattr(error, name, None) for name in ("missing_cfg_file", "options"))
    if missing and options:  # Hydra's, which is not imported for the sake of a message
        group, _, name = missing.rpartition("/")
        return f"{group} must be one of {', '.join(options)}, but is {name}."
    section = getattr(error, "parent_node", None)
    if isinstance(error, (ConfigAttributeError, ConfigKeyError)) and section:
        where = str(error.full_key).rpartition(".")[0] or "the config"
        return f"{error.full_key} is no setting: {where} has {', '.join(map(str, section))}."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = getattr(error, "full_key", None)
    text = lines[0].rstrip(".") if lines else type(error).__name__
    return f"{text} (at {key})." if key and str(key) not in text else f"{text}."


def register_schema() -> None:
    """Make `hpc_schema` available to every defaults list, so that overrides are typed when they are composed."""
    from hydra.core.config_store import ConfigStore  # deferred: `import hpc` stays light

    sections = {
        "hardware": Hardware,
        "cluster": Cluster,
        "strategy": StrategyOptions,
        "runtime": RuntimeOptions,
        "checkpoint": CheckpointOptions,
        "launch": Launch,
        "experiment": Experiment,
    }
    ConfigStore.instance().store(name="hpc_schema", node=sections, provider="hpc")


def _to_object(merged: Any) -> Settings:
    if OmegaConf.is_missing(merged.experiment, "target"):
        merged.experiment.target = ""
    settings = OmegaConf.to_object(merged)
    if not isinstance(settings, Settings):
        raise ConfigurationError(f"The config must be a mapping, but is {type(settings).__name__}.")
    return settings


def _check_values(merged: Any) -> None:
    for key, allowed in CHOICES.items():
        value = OmegaConf.select(merged, key)
        if value not in allowed:
            raise ConfigurationError(f"{key} must be one of {', '.join(map(_typed, allowed))}, but is {value}.")
    for key in AT_LEAST_ONE:
        value = OmegaConf.select(merged, key)
        if value is not None and value < 1:
            raise ConfigurationError(f"{key} must be at least 1, but is {value}.")


def _check_hardware(hardware: Hardware) -> None:
    if hardware.gpus_per_node < 0:
        raise ConfigurationError(f"hardware.gpus_per_node must be at least 0, but is {hardware.gpus_per_node}.")
    if 0 < hardware.gpus_per_node < (hardware.tasks_per_node or 1):
        raise ConfigurationError(
            f"hardware.tasks_per_node must be at most hardware.gpus_per_node ({hardware.gpus_per_node}), "
            f"so that no two ranks share a GPU, but is {hardware.tasks_per_node}."
        )


def _check_checkpoint(checkpoint: CheckpointOptions) -> None:
    if checkpoint.every_steps is not None and checkpoint.every_minutes is not None:
        raise ConfigurationError(
            "checkpoint.every_steps and checkpoint.every_minutes must not both be given, but are "
            f"{checkpoint.every_steps} and {checkpoint.every_minutes:g}: leave one null."
        )
    for key in ("every_minutes", "mean_hours_between_failures"):
        value = getattr(checkpoint, key)
        if value is not None and value <= 0:
            raise ConfigurationError(f"checkpoint.{key} must be above 0, but is {value:g}.")


def _typed(value: object) -> str:
    """As a person types it in an override or a YAML file."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _check_strategy(strategy: StrategyOptions) -> None:
    default = StrategyOptions()
    for option, owner in ONLY_OF.items():
        value = getattr(strategy, option)
        if value != getattr(default, option) and strategy.name != owner:
            raise ConfigurationError(
                f"strategy.{option} must be {_typed(getattr(default, option))} unless strategy={owner}, "
                f"but is {_typed(value)} with strategy={strategy.name}."
            )
