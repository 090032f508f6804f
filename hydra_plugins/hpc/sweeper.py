"""Turns `-m a=1,2 b=3,4` into the points of one sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep, Sweep
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

LAUNCHER = "hydra_plugins.hpc.launcher.HpcLauncher"


class HpcSweeper(BasicSweeper):
    """The cartesian product of the overrides, handed to the launcher at once.

    Hydra's own sweeper writes multirun.yaml before it looks at a single point, and composes every point
    once more than the launcher does. This one writes nothing: a refused sweep leaves no trace.
    """

    def __init__(self, params: Mapping[str, str] | None = None) -> None:
        super().__init__(max_batch_size=None, params=dict(params) if isinstance(params, Mapping) else None)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See Hydra's Sweeper; the launcher gets the same three.

        Raises:
            ConfigurationError: The launcher would train here, one point after the other; or params are none.
        """
        if config.hydra.launcher._target_ != LAUNCHER:
            _refuse(
                f"hydra/launcher must be hpc where hydra/sweeper is, but is {config.hydra.launcher._target_}: "
                "write `override hydra/launcher: hpc` into the defaults list of your config."
            )
        params = config.hydra.sweeper.params
        if params is not None and not isinstance(params, Mapping):
            _refuse(f"hydra.sweeper.params must be a mapping of settings and their values, but is {params}.")
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.parser = OverridesParser.create(config_loader=hydra_context.config_loader)

    def sweep(self, arguments: list[str]) -> Any:
        """Launch every point of the product of hydra.sweeper.params and `arguments`; what is typed wins.

        Raises:
            ConfigurationError: An override has no values, or a point is not valid.
        """
        overrides = self.parser.parse_overrides([*self._parse_config(), *arguments])
        for override in overrides:
            _check(override)
        self._check_size(overrides)
        (points,) = self.split_arguments(overrides, None)
        if self.launcher is None:
            raise RuntimeError("Hydra calls setup before sweep.")
        return self.launcher.launch(points, initial_job_idx=0)

    def _check_size(self, overrides: list[Override]) -> None:
        """Before the product is made: its size is known without it."""
        from hpc.config import Launch  # deferred: Hydra imports this module in every app

        sizes = {override.get_key_element(): _count(override) for override in overrides}  # the last of a key counts
        asked = OmegaConf.select(self.config, "launch.max_points") if self.config is not None else None
        size, limit = math.prod(sizes.values()), asked if isinstance(asked, int) else Launch.max_points
        if size > limit:
            factors = " × ".join(f"{count:,} of {key}" for key, count in sizes.items() if count > 1)
            _refuse(f"The sweep must have at most launch.max_points={limit} points, but has {size:,} ({factors}).")


def _check(override: Override) -> None:
    if not override.is_sweep_override():
        return
    if not override.is_discrete_sweep():
        _refuse(f"{override.input_line} must be values, a choice, a range or a glob to be swept, but is an interval.")
    swept = override.value()
    if isinstance(swept, ChoiceSweep) and any(isinstance(each, Sweep) for each in swept.list):
        _refuse(f"{override.input_line} must be values to be swept, but has a sweep among them.")
    if isinstance(swept, RangeSweep) and not swept.step:
        _refuse(f"{override.input_line} must have a step other than 0 to be swept.")
    if not _count(override):
        _refuse(f"{override.input_line} must have at least one value to be swept, but has none.")


def _count(override: Override) -> int:
    """How many values an override has; a range is not expanded for it."""
    if not override.is_sweep_override():
        return 1
    swept = override.value()
    if not isinstance(swept, RangeSweep):
        return sum(1 for _ in override.sweep_iterator())
    values = swept.range()
    if isinstance(values, range):
        return max(0, -((values.start - values.stop) // values.step))  # len() takes no more than a machine word
    start, stop, step = map(Decimal, (values.start, values.stop, values.step))
    return max(0, math.ceil((stop - start) / step))


def _refuse(text: str) -> None:
    from hpc.errors import ConfigurationError  # deferred: Hydra imports this module in every app

    raise ConfigurationError(text)


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="hpc",
    node={"_target_": "hydra_plugins.hpc.sweeper.HpcSweeper", "params": None},
    provider="hpc",
)
