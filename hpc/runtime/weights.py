"""How do weights leave a run? As the user's own module, or as its whole state dict."""

from __future__ import annotations

from typing import Any

import torch

from hpc.checkpoint.shards import is_distributed
from hpc.errors import ConfigurationError
from hpc.strategy import Strategy
from hpc.world import World


class Weights:
    """The part of a Runtime that gives models back."""

    world: World
    strategy: Strategy

    def unwrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """The user's own module inside a prepared one."""
        return self.strategy.unwrap(model)

    def unwrap_model(
        self, model: torch.nn.Module, keep_fp32_wrapper: bool = True, keep_torch_compile: bool = True
    ) -> torch.nn.Module:
        """`unwrap` under Accelerate's name.

        Raises:
            ConfigurationError: The precision or the compiled graph is to be taken off, which cannot be.
        """
        if not (keep_fp32_wrapper and keep_torch_compile):
            raise ConfigurationError(
                "runtime.unwrap_model must keep the precision and the compiled graph, which belong to the module's "
                "forward and not to its weights, but was told not to: save its state dict, which is the same."
            )
        return self.unwrap(model)

    def get_state_dict(self, model: torch.nn.Module, unwrap: bool = True) -> dict[str, Any]:
        """A model's weights and buffers, whole, under the names of the user's own module. Collective.

        Args:
            model: From `prepare`.
            unwrap: As Accelerate has it; the names are those of the user's own module in any case.

        Returns:
            Where ranks share parts of them, on the CPU, and on rank 0 only: elsewhere it is empty.

        Raises:
            ConfigurationError: DeepSpeed has divided the parameters (ZeRO 3), or the wrapper's names are wanted.
        """
        if not unwrap:
            raise ConfigurationError(
                "runtime.get_state_dict must give the names of the module itself, which every strategy has, but got "
                f"unwrap={unwrap!r}: leave it out."
            )
        state = self.strategy.unwrap(model).state_dict()
        if any(hasattr(each, "ds_id") for each in model.parameters()):
            raise ConfigurationError(
                "runtime.get_state_dict must have whole parameters, but DeepSpeed has divided them (strategy.zero_stage"
                "=3): save the run, and use DeepSpeed's zero_to_fp32 on its checkpoint."
            )
        if not any(is_distributed(each) for each in state.values()):
            return state
        whole: dict[str, Any] = {}
        for name, value in state.items():  # one by one: together they may not fit on a device
            each = value.full_tensor() if is_distributed(value) else value
            if self.world.rank == 0:
                whole[name] = each.cpu() if isinstance(each, torch.Tensor) else each
        return whole
