"""How do ranks share a step? Every way has a name in the config."""

from __future__ import annotations

from collections.abc import Callable

from hpc.strategy.contract import Context, Strategy
from hpc.strategy.ddp import DDP
from hpc.strategy.deepspeed import DeepSpeed
from hpc.strategy.fsdp import FSDP
from hpc.strategy.single import Single

STRATEGIES: dict[str, Callable[[Context], Strategy]] = {
    "single": Single,
    "ddp": DDP,
    "fsdp": FSDP,
    "deepspeed": DeepSpeed,
}

__all__ = ["STRATEGIES", "Context", "Strategy", "choose"]


def choose(context: Context) -> Strategy:
    """The configured strategy. With one rank, ddp and fsdp fall back to single.

    Raises:
        ConfigurationError: The strategy does not work with this number of ranks, or its package is not installed.
    """
    name = context.options.name
    alone = context.group.world.world_size == 1 and name in ("ddp", "fsdp")
    return STRATEGIES["single" if alone else name](context)
