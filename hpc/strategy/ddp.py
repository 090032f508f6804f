"""How do ranks share a step when each has the whole model? With torch's DistributedDataParallel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from hpc.checkpoint.models import overlaps
from hpc.checkpoint.names import few
from hpc.errors import ConfigurationError
from hpc.strategy.contract import Context
from hpc.strategy.single import Single

UNUSED = "Expected to have finished reduction in the prior iteration"
"""How torch begins to say that parameters got no gradient (torch 2.6-2.13, reducer.cpp)."""


class DDP(Single):
    """Gradients are averaged while the backward pass runs.

    DDP sums gradients in buckets, and sorts the buckets anew after the first backward pass of a process. A ring
    all-reduce over more than two ranks adds in an order that depends on the place in the bucket, so that a resumed run
    would not be bit for bit equal to the uninterrupted one. Deterministic runs therefore keep the first buckets. DDP
    does so when it looks for unused parameters (torch 2.6-2.13, Reducer::should_rebuild_buckets).

    Args:
        context: The run's.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._wrapped: list[Following] = []

    def set_sync(self, sync: bool) -> None:
        """See `Strategy.set_sync`; this is what `no_sync` sets (torch 2.6-2.13)."""
        for model in self._wrapped:
            model.require_backward_grad_sync = sync

    def unwrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """See `Strategy.unwrap`."""
        return model.module if isinstance(model, DistributedDataParallel) else model

    def _share(self, model: torch.nn.Module, blocks: Sequence[torch.nn.Module]) -> torch.nn.Module:
        model = super()._share(model, blocks)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            return model
        make_sendable(model)
        device = self.context.group.device
        wrapped = Following(
            model,
            device_ids=[device.index] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            find_unused_parameters=self.context.options.find_unused_parameters or self.context.deterministic,
        )
        self._wrapped.append(wrapped)
        return wrapped


def make_sendable(model: torch.nn.Module) -> None:
    """Buffers travel from rank 0 to the others before each step: expanded ones get memory for every element.

    Raises:
        ConfigurationError: One is not dense, which torch cannot send (torch 2.6-2.13).
    """
    for name, buffer in model.named_buffers():
        if buffer.layout is not torch.strided or buffer.is_quantized:
            raise ConfigurationError(
                f"strategy=ddp must have dense buffers, because rank 0 sends its own to the others, but {name} is of "
                f"layout {buffer.layout} and type {buffer.dtype}: let it be a plain attribute, or dense."
            )
        if overlaps(buffer):
            buffer.data = buffer.data.contiguous()


class Following(DistributedDataParallel):
    """DDP that notices when layers are frozen or unfrozen later; torch's own looks at them only when it is built.

    The module's own attributes and methods can be read and set on it, as where one rank trains without DDP.

    Args:
        module: With at least one parameter that is trained.
        options: Those of torch's class.
    """

    def __init__(self, module: torch.nn.Module, **options: Any) -> None:
        super().__init__(module, **options)
        self._options = options
        self._all = list(module.parameters())
        self._trained = self._which_are_trained()

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The module's forward. Where other parameters are trained than before, torch's object is built again first.

        Raises:
            ConfigurationError: In the step before, some parameters got no gradient.
        """
        if self._which_are_trained() != self._trained:
            self._wire_anew()
        try:
            return super().forward(*inputs, **kwargs)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if not str(error).startswith(UNUSED):
                raise
            raise ConfigurationError(self._why_unused(str(error))) from error

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module":  # torch's constructor has not come to it yet
                raise
            return getattr(self.module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        module = vars(self).get("_modules", {}).get("module")  # none while torch's constructor runs
        is_own = "_trained" not in vars(self) or name in vars(self) or hasattr(type(self), name)
        if module is None or is_own or not hasattr(module, name):
            super().__setattr__(name, value)
        else:
            setattr(module, name, value)

    def _which_are_trained(self) -> list[bool]:
        return [parameter.requires_grad for parameter in self._all]

    def _wire_anew(self) -> None:
        """Build torch's object again in place, because it cannot be told of other parameters (torch 2.6-2.13)."""
        sync, module, options, parameters = self.require_backward_grad_sync, self.module, self._options, self._all
        super().__init__(module, **options)
        self.require_backward_grad_sync = sync
        self._options, self._all = options, parameters
        self._trained = self._which_are_trained()

    def _why_unused(self, text: str) -> str:
        new = [name for name, each in self.module.named_parameters() if not any(each is old for old in self._all)]
        if new:
            return (
                "A model must keep its parameters once it is prepared, because the ranks exchange the gradients of "
                f"those, but {few(new)} came later: build all layers before prepare."
            )
        return (
            "strategy=ddp must get a gradient for every parameter in every step, but the last one left out "
            f"{self._without_gradient(text)}: set strategy.find_unused_parameters=true, which looks for them."
        )

    def _without_gradient(self, text: str) -> str:
        """Names of the parameters without a gradient; torch's message ends with a list of their indices."""
        trained = [name for name, parameter in self.module.named_parameters() if parameter.requires_grad]
        places = [int(place) for place in re.findall(r"\d+", text.rpartition("for rank")[2].partition(":")[2])]
        names = [trained[place] for place in places if place < len(trained)]
        return few(names) or "some"
