"""How do ranks share a step? Every way has a name in the config."""

from __future__ import annotations

from importlib import import_module

from hpc.strategy.contract import Context, Strategy

STRATEGIES = {"single": "Single", "ddp": "DDP", "fsdp": "FSDP", "deepspeed": "DeepSpeed"}
"""Name in the config, which is the file's here -> class. Only the chosen one is imported: FSDP's brings sympy."""

__all__ = ["STRATEGIES", "Context", "Strategy", "choose"]


def choose(context: Context) -> Strategy:
    """The configured strategy. With one rank, ddp and fsdp fall back to single.

    Raises:
        ConfigurationError: The strategy does not work with this number of ranks, or its package is not installed.
    """
    name = context.options.name
    alone = context.group.world.world_size == 1 and name in ("ddp", "fsdp")
    chosen = "single" if alone else name
    strategy: Strategy = getattr(import_module(f"hpc.strategy.{chosen}"), STRATEGIES[chosen])(context)
    return strategy
