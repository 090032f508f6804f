"""Which number format the forward pass uses, and how small gradients survive it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.amp import GradScaler

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """One precision for all models of a run.

    Args:
        name: fp32, bf16 or fp16.
        device: Where the forward pass runs.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.dtype = DTYPES.get(name)
        self.device = device
        self.scaler = GradScaler(device.type, enabled=name == "fp16")

    @property
    def scales(self) -> bool:
        """Whether losses are scaled, and steps skipped when a gradient overflows."""
        return self.scaler.is_enabled()

    def autocast(self) -> torch.autocast:
        """A context in which operations run in this precision."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    def cast_forward(self, model: torch.nn.Module) -> None:
        """Make the model's own forward run in this precision, so that the user's loop need not say so."""
        if self.dtype is not None:
            model.forward = _under(self.autocast, model.forward)


def _under(context: Callable[[], Any], forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with context():
            return forward(*args, **kwargs)

    return wrapped
