"""What does the user's loop step? Its optimizer and scheduler, in objects that act at the end of a window only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from hpc.errors import ConfigurationError
from hpc.strategy.precision import Precision
from hpc.strategy.window import Window


class WrappedOptimizer(Optimizer):
    """The user's optimizer behind a `step` of ours. It is an Optimizer, so that schedulers can be built on it.

    `Optimizer.__init__` is not called on purpose: groups and state are those of the user's optimizer.

    Args:
        optimizer: As torch made it; every other attribute is its own.
        window: Shared with the loop.
    """

    def __init__(self, optimizer: Optimizer, window: Window) -> None:
        self.optimizer = optimizer
        self.window = window

    def __getattr__(self, name: str) -> Any:
        if name == "optimizer":  # a copy that is being made has no attributes yet
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The user's optimizer's own."""
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    @property
    def state(self) -> Any:
        """The user's optimizer's own."""
        return self.optimizer.state

    @state.setter
    def state(self, state: Any) -> None:
        self.optimizer.state = state

    @property
    def defaults(self) -> dict[str, Any]:
        """The user's optimizer's own."""
        return self.optimizer.defaults

    @defaults.setter
    def defaults(self, defaults: dict[str, Any]) -> None:
        self.optimizer.defaults = defaults

    def state_dict(self) -> dict[str, Any]:
        """As the user's optimizer gives it."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As the user's optimizer takes it."""
        self.optimizer.load_state_dict(state_dict)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Train more parameters."""
        self.optimizer.add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds. As in torch, the `step` that a scheduler has wrapped is left out."""
        return {name: value for name, value in vars(self).items() if name != "step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.optimizer!r})"


class PreparedOptimizer(WrappedOptimizer):
    """`step` and `zero_grad` act at the end of an accumulation window only.

    Args:
        optimizer: As torch made it.
        precision: Divides the gradients by the loss scale, once, before clipping or stepping.
        window: Shared with the loop.
    """

    def __init__(self, optimizer: Optimizer, precision: Precision, window: Window) -> None:
        super().__init__(optimizer, window)
        self.precision = precision

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step at the end of a window; skipped on every rank when a gradient overflowed.

        Args:
            closure: Computes the loss again, as LBFGS wants it; it calls `runtime.backward`.

        Returns:
            What the user's optimizer returns; None where no step was taken.

        Raises:
            ConfigurationError: There is a closure, and steps are accumulated or losses are scaled.
        """
        if closure is not None:
            self._check_closure()
        if not self.window.is_last:
            return None
        if self.precision.scales:
            self.window.note_step(self.optimizer, taken=self.precision.step(self.optimizer))
            return None
        result = self.optimizer.step() if closure is None else self.optimizer.step(closure)
        self.window.has_stepped = True
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients at the end of a window; inside a window they are kept."""
        if self.window.is_last:
            self.optimizer.zero_grad(set_to_none=set_to_none)

    @property
    def step_was_skipped(self) -> bool:
        """Whether the last step was skipped because a scaled gradient overflowed."""
        return self.optimizer in self.window.skipped

    def _check_closure(self) -> None:
        if self.window.size > 1 or self.precision.scales:
            raise ConfigurationError(
                "optimizer.step(closure) needs strategy.accumulation_steps=1 and strategy.precision fp32 or bf16, "
                f"because a closure computes one whole gradient, but they are {self.window.size} and "
                f"{'fp16' if self.precision.scales else 'not fp16'}: change them, or call step without a closure."
            )


class PreparedScheduler:
    """The user's scheduler; it advances once per step that its optimizer took.

    Args:
        scheduler: As torch made it; every other attribute is its own.
        window: Shared with the loop.
    """

    def __init__(self, scheduler: Any, window: Window) -> None:
        self.scheduler = scheduler
        self.window = window

    def __getattr__(self, name: str) -> Any:
        if name == "scheduler":  # a copy that is being made has no attributes yet
            raise AttributeError(name)
        return getattr(self.scheduler, name)

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Advance at the end of a window, unless its optimizer step was skipped; arguments are handed on."""
        if self.window.is_last and not (self.window.skipped and self._is_skipped()):
            self.scheduler.step(*args, **kwargs)

    def _is_skipped(self) -> bool:
        optimizer = getattr(self.scheduler, "optimizer", None)
        return getattr(optimizer, "optimizer", optimizer) in self.window.skipped
