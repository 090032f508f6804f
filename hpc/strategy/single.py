"""How does one rank take a step? With the model as it is, on the rank's device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from hpc.errors import ConfigurationError
from hpc.strategy.blocks import compile_whole, find_blocks, recompute
from hpc.strategy.contract import Context, check_model
from hpc.strategy.optimizer import PreparedOptimizer, WrappedOptimizer
from hpc.strategy.precision import check_scalable


class Single:
    """The strategy of one rank, and what torch's own strategies have in common.

    Args:
        context: The run's.

    Raises:
        ConfigurationError: There are several ranks.
    """

    def __init__(self, context: Context) -> None:
        ranks = context.group.world.world_size
        if ranks > 1 and context.options.name == "single":
            raise ConfigurationError(
                f"strategy=single must have a world of one, but the world has {ranks} ranks: use strategy=ddp."
            )
        self.context = context
        if context.precision.scales:
            context.state.others["scaler"] = context.precision
        self._optimizers: list[Optimizer] = []
        self.prepared_optimizers: list[WrappedOptimizer] = []

    def prepare(self, models: Sequence[torch.nn.Module], optimizers: Sequence[Optimizer]) -> Mapping[int, Any]:
        """See `Strategy.prepare`."""
        ready: dict[int, Any] = {id(model): self._prepare_model(model) for model in models}
        ready.update((id(optimizer), self._prepare_optimizer(optimizer)) for optimizer in optimizers)
        return ready

    def check_batch_size(self, batch_size: int) -> None:
        """See `Strategy.check_batch_size`; every size is accepted."""

    def set_sync(self, sync: bool) -> None:
        """See `Strategy.set_sync`; with one rank there is nothing to exchange."""

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """See `Strategy.backward`."""
        precision = self.context.precision
        if precision.scales:
            loss = precision.scaler.scale(loss)
        loss.backward(**kwargs)  # type: ignore[no-untyped-call]

    def clip_grad_norm_(self, max_norm: float, parameters: Iterable[torch.Tensor] | None) -> torch.Tensor:
        """See `Strategy.clip_grad_norm_`."""
        clipped = self._trained() if parameters is None else list(parameters)
        if self.context.precision.scales:
            self._unscale(clipped)
        return self._clip(clipped, max_norm)

    def clip_grad_value_(self, clip_value: float, parameters: Sequence[torch.Tensor]) -> None:
        """See `Strategy.clip_grad_value_`."""
        if self.context.precision.scales:
            self._unscale(parameters)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.clamp_(-clip_value, clip_value)

    def unwrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """See `Strategy.unwrap`."""
        return model

    def _prepare_model(self, model: torch.nn.Module) -> torch.nn.Module:
        check_model(model)
        if self.context.precision.scales:
            check_scalable(model)
        blocks = find_blocks(model, self.context.options)
        recompute(model, blocks, self.context.options)
        self._compile(model, blocks)
        self.context.precision.cast_forward(model)
        self.context.state.models.append(model)
        return self._share(model, blocks)

    def _compile(self, model: torch.nn.Module, blocks: Sequence[torch.nn.Module]) -> None:
        compile_whole(model, blocks, self.context.options)

    def _share(self, model: torch.nn.Module, blocks: Sequence[torch.nn.Module]) -> torch.nn.Module:  # noqa: ARG002
        return model.to(self.context.group.device)

    def _prepare_optimizer(self, optimizer: Optimizer) -> PreparedOptimizer:
        self._optimizers.append(optimizer)
        self.context.state.optimizers.append(optimizer)
        prepared = PreparedOptimizer(optimizer, self.context.precision, self.context.window)
        self.prepared_optimizers.append(prepared)
        return prepared

    def _clip(self, parameters: Sequence[torch.Tensor], max_norm: float) -> torch.Tensor:
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)

    def _unscale(self, parameters: Sequence[torch.Tensor]) -> None:
        """Unscale the optimizers that train these; another one's gradients may not be complete yet."""
        for optimizer in self._optimizers:
            mine = {parameter for group in optimizer.param_groups for parameter in group["params"]}
            if not mine.isdisjoint(parameters):
                self.context.precision.unscale(optimizer)

    def _trained(self) -> list[torch.Tensor]:
        """Parameters to clip, from the optimizers, because walking a model's modules takes 3 % of a 0.4 ms step."""
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        trained = [parameter for group in groups for parameter in group["params"]]
        return trained or [parameter for model in self.context.state.models for parameter in model.parameters()]
