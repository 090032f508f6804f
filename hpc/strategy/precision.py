"""Which number format does the forward pass use, and how are losses scaled so that small gradients are not lost?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.amp import GradScaler
from torch.optim import Optimizer

from hpc.errors import ConfigurationError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """One precision, and one loss scale, for all models and optimizers of a run.

    The loss scale is adapted once per accumulation window, however many optimizers step in it. `GradScaler.update`
    forgets which optimizers were unscaled already (torch 2.6-2.13), so that after a call between the steps of two
    optimizers the second one would be unscaled twice.

    Args:
        name: fp32, bf16 or fp16.
        device: Where the forward pass runs.

    Raises:
        ConfigurationError: torch cannot scale losses on this device, and fp16 needs it.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.dtype = DTYPES.get(name)
        self.device = device
        self.scaler = _scaler(device, enabled=name == "fp16")
        self.scales = self.scaler.is_enabled()
        """Whether losses are scaled, and steps skipped when a gradient overflows."""
        self._unscaled: set[Optimizer] = set()

    def autocast(self) -> torch.autocast:
        """A context in which operations run in this precision."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    def cast_forward(self, model: torch.nn.Module) -> None:
        """Make the model's own forward run in this precision, so that the user's loop needs no autocast."""
        if self.dtype is not None:
            model.forward = _under(self.autocast, model.forward)

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide an optimizer's gradients by the loss scale, once per window; nothing happens while it has none."""
        if optimizer in self._unscaled or not _has_gradients(optimizer):
            return
        self.scaler.unscale_(optimizer)
        self._unscaled.add(optimizer)

    def step(self, optimizer: Optimizer) -> bool:
        """Let an optimizer step, unless a scaled gradient overflowed on any rank; returns whether it stepped."""
        self.unscale(optimizer)
        taken: list[bool] = []
        note = optimizer.register_step_pre_hook(lambda optimizer, *_: taken.append(not _is_told_to_skip(optimizer)))
        try:
            if optimizer in self._unscaled:
                self.scaler.step(optimizer)
        finally:
            note.remove()
        return taken == [True]

    def close_window(self) -> None:
        """Adapt the loss scale: lower after an overflow, higher after many steps. A second call does nothing."""
        if self._unscaled:
            self._unscaled.clear()
            self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """The loss scale between two windows."""
        self.close_window()
        return self.scaler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a saved loss scale."""
        self.scaler.load_state_dict(state_dict)


def check_scalable(model: torch.nn.Module) -> None:
    """Refuse a model that cannot be trained with a loss scale.

    Raises:
        ConfigurationError: A parameter itself is fp16, and torch cannot unscale its gradients (torch 2.6-2.13).
    """
    for name, parameter in model.named_parameters():
        if parameter.dtype is torch.float16:
            raise ConfigurationError(
                f"strategy.precision=fp16 needs fp32 parameters, but {name} is float16: leave out .half(), "
                "because prepare makes the forward pass run in fp16 by itself."
            )


def _scaler(device: torch.device, enabled: bool) -> GradScaler:
    scaler = GradScaler(device.type, enabled=enabled)
    if enabled and not scaler.is_enabled():
        raise ConfigurationError(
            f"strategy.precision=fp16 needs loss scaling, which torch has not for {device.type}: use bf16."
        )
    return scaler


def _has_gradients(optimizer: Optimizer) -> bool:
    return any(parameter.grad is not None for group in optimizer.param_groups for parameter in group["params"])


def _is_told_to_skip(optimizer: Optimizer) -> bool:
    """Whether GradScaler told a fused optimizer, which it always calls, to skip (torch 2.6-2.13, GradScaler.step)."""
    return bool(getattr(optimizer, "found_inf", False))


def _under(context: Callable[[], Any], forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with context():
            return forward(*args, **kwargs)

    return wrapped
