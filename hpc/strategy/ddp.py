"""How ranks with a whole model each share a step: torch's DistributedDataParallel."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from hpc.strategy.contract import Context
from hpc.strategy.single import Single


class DDP(Single):
    """Gradients are averaged while the backward pass runs.

    Deterministic runs keep the gradient buckets as they are built. DDP lays them out anew after the first backward
    pass, so a resumed run would reduce its first gradients in another layout than the uninterrupted one, and a ring
    all-reduce over more than two ranks adds in an order that depends on the place in the bucket. DDP leaves them alone
    when it looks for unused parameters (torch 2.6-2.13, Reducer::should_rebuild_buckets).

    Args:
        context: The run's.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._wrapped: list[DistributedDataParallel] = []

    def without_sync(self) -> AbstractContextManager[Any]:
        """See `Strategy.without_sync`."""
        stack = contextlib.ExitStack()
        for model in self._wrapped:
            stack.enter_context(model.no_sync())
        return stack

    def unwrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """See `Strategy.unwrap`."""
        return model.module if isinstance(model, DistributedDataParallel) else model

    def _share(self, model: torch.nn.Module, blocks: Sequence[torch.nn.Module]) -> torch.nn.Module:
        model = super()._share(model, blocks)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            return model
        device = self.context.group.device
        wrapped = DistributedDataParallel(
            model,
            device_ids=[device.index] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            find_unused_parameters=self.context.deterministic,
        )
        self._wrapped.append(wrapped)
        return wrapped
