"""What DeepSpeed is told: the user's file and our config, which must agree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.config import StrategyOptions
from hpc.errors import ConfigurationError

DEFAULT_STAGE = 2
BUILT_BY_THE_USER = ("optimizer", "scheduler")
AS_GRAD_SCALER = {"initial_scale_power": 16, "loss_scale_window": 2000, "hysteresis": 1}
"""The values of torch.amp.GradScaler, so that fp16 means the same with every strategy."""


@dataclass(frozen=True)
class EngineSettings:
    """A DeepSpeed config that agrees with ours.

    Args:
        source: Path of the user's file, or "".
        given: What it says, without its "auto" values.
        options: The strategy section of our config.
        world_size: Ranks.
    """

    source: str
    given: Mapping[str, Any]
    options: StrategyOptions
    world_size: int

    def for_engine(self) -> dict[str, Any]:
        """The whole config. Batch sizes that nobody gave are made up, because the engine only logs them."""
        zero = {"stage": self.options.zero_stage or DEFAULT_STAGE, **self.given.get("zero_optimization", {})}
        micro = self.given.get("train_micro_batch_size_per_gpu", 1)
        config = {
            "steps_per_print": 2**31,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            **self.given,
            "zero_optimization": zero,
            "gradient_accumulation_steps": self.options.accumulation_steps,
            "train_micro_batch_size_per_gpu": micro,
            "train_batch_size": micro * self.options.accumulation_steps * self.world_size,
        }
        if self.options.precision != "fp32":
            scaling = AS_GRAD_SCALER if self.options.precision == "fp16" else {}
            section = {**scaling, **self.given.get(self.options.precision, {}), "enabled": True}
            config[self.options.precision] = section
        return config

    def check_batch_size(self, batch_size: int) -> None:
        """Refuse a loader that the file contradicts.

        Args:
            batch_size: Samples per rank and micro-batch.

        Raises:
            ConfigurationError: The file names another batch size, or another number of samples per step.
        """
        total = batch_size * self.options.accumulation_steps * self.world_size
        self.agree("train_micro_batch_size_per_gpu", "the loader's batch_size", batch_size)
        self.agree("train_batch_size", "batch_size × strategy.accumulation_steps × ranks", total)

    def check_clipping(self, max_norm: float) -> None:
        """Refuse to clip to another norm than the file says.

        Raises:
            ConfigurationError: The file names another norm.
        """
        self.agree("gradient_clipping", "the norm given to clip_grad_norm_", max_norm)

    def agree(self, path: str, ours: str, value: Any) -> None:
        """Refuse a value in the file that differs from ours.

        Args:
            path: Keys in the file, joined by dots.
            ours: The name of our setting.
            value: The value of our setting.

        Raises:
            ConfigurationError: The file has another value.
        """
        found: Any = self.given
        for key in path.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is not None and found != value:
            raise ConfigurationError(
                f"{path} in {self.source} must be {ours} ({value}), but is {found}: change one of them, or leave "
                "it out of the file."
            )


def read_settings(options: StrategyOptions, world_size: int) -> EngineSettings:
    """Read `strategy.deepspeed_config`, if there is one.

    Raises:
        ConfigurationError: It cannot be read, contradicts the strategy section, or builds what the user builds.
    """
    given = _read(options.deepspeed_config) if options.deepspeed_config else {}
    settings = EngineSettings(options.deepspeed_config or "", _without_auto(given), options, world_size)
    for key in BUILT_BY_THE_USER:
        if key in settings.given:
            raise ConfigurationError(
                f"{settings.source} must not have {key}, because the training function builds its own, but has one."
            )
    settings.agree("gradient_accumulation_steps", "strategy.accumulation_steps", options.accumulation_steps)
    settings.agree("checkpoint.checkpoint_serialization", "what can be loaded without running its code", True)
    if options.zero_stage is not None:
        settings.agree("zero_optimization.stage", "strategy.zero_stage", options.zero_stage)
    _check_precision(settings)
    _check_stage(settings)
    return settings


def _read(path: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"strategy.deepspeed_config must be a JSON file, but is {path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} must hold a JSON object, but holds a {type(content).__name__}.")
    return content


def _without_auto(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section without its "auto" values, which files for Transformers leave to be filled in."""
    nested = {key: _without_auto(value) if isinstance(value, dict) else value for key, value in section.items()}
    return {key: value for key, value in nested.items() if value != "auto"}


def _check_precision(settings: EngineSettings) -> None:
    sections = ("bf16", "fp16")
    enabled = [name for name in sections if settings.given.get(name, {}).get("enabled")]
    said = any("enabled" in settings.given.get(name, {}) for name in sections)
    found = enabled[0] if enabled else "fp32"
    if said and found != settings.options.precision:
        raise ConfigurationError(
            f"strategy.precision must be what {settings.source} enables ({found}), "
            f"but is {settings.options.precision}: change one of them."
        )


def _check_stage(settings: EngineSettings) -> None:
    stage = settings.for_engine()["zero_optimization"]["stage"]
    if stage not in (1, 2, 3):
        raise ConfigurationError(f"The ZeRO stage must be 1, 2 or 3, but is {stage}: strategy=ddp shards nothing.")
