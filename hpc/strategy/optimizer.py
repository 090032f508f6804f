"""What does the user's loop step? Its optimizer and scheduler, in objects that act at the end of a window only.

To whoever asks they are what they wrap: isinstance says so, and attributes that are set are those of the user's object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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

    optimizer: Optimizer
    window: Window

    def __init__(self, optimizer: Optimizer, window: Window) -> None:
        vars(self).update(optimizer=optimizer, window=window)

    __class__ = property(lambda self: _kind(self, "optimizer"))

    def __getattr__(self, name: str) -> Any:
        return _attribute_of(self, "optimizer", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _set_attribute(self, "optimizer", name, value)

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

    def __reduce__(self) -> Any:
        return _blank, (type(self),), self.__getstate__()

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
        vars(self).update(precision=precision)

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

    scheduler: Any
    window: Window

    def __init__(self, scheduler: Any, window: Window) -> None:
        vars(self).update(scheduler=scheduler, window=window)

    __class__ = property(lambda self: _kind(self, "scheduler"))

    def __getattr__(self, name: str) -> Any:
        return _attribute_of(self, "scheduler", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _set_attribute(self, "scheduler", name, value)

    def __reduce__(self) -> Any:
        return _blank, (type(self),), vars(self)

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Advance at the end of a window, unless its optimizer step was skipped; arguments are handed on."""
        if self.window.is_last and not (self.window.skipped and self._is_skipped()):
            self.scheduler.step(*args, **kwargs)

    def _is_skipped(self) -> bool:
        optimizer = getattr(self.scheduler, "optimizer", None)
        return getattr(optimizer, "optimizer", optimizer) in self.window.skipped


def check_schedulers(optimizers: Sequence[WrappedOptimizer], saved: Iterable[object]) -> None:
    """A scheduler that was not handed over would start anew in the next life.

    Args:
        optimizers: That were prepared.
        saved: Whatever else is saved, schedulers among it.

    Raises:
        ConfigurationError: An optimizer has a scheduler that is not saved.
    """
    known = [getattr(each, "optimizer", None) for each in saved]
    for prepared in optimizers:
        both = (prepared, prepared.optimizer)
        has_scheduler = any(hasattr(vars(each).get("step"), "_wrapped_by_lr_sched") for each in both)  # torch 2.6-2.13
        if has_scheduler and not any(each is one for each in known for one in both):
            raise ConfigurationError(
                "A scheduler must be prepared before the first step, so that it is saved and advances once per "
                f"optimizer step, but one was built on the {type(prepared.optimizer).__name__} and not: scheduler = "
                "runtime.prepare(scheduler)."
            )


def _kind(wrapper: object, wrapped: str) -> type:
    """What a wrapper says that it is: the user's class, of which it has all attributes."""
    return type(vars(wrapper).get(wrapped, wrapper))


def _attribute_of(wrapper: object, wrapped: str, name: str) -> Any:
    if wrapped not in vars(wrapper):  # a copy that is being made has no attributes yet
        raise AttributeError(name)
    return getattr(vars(wrapper)[wrapped], name)


def _set_attribute(wrapper: object, wrapped: str, name: str, value: Any) -> None:
    """What the user's object has is set there, where its own code reads it."""
    own = name in vars(wrapper) or hasattr(type(wrapper), name) or not hasattr(vars(wrapper).get(wrapped), name)
    if own:
        object.__setattr__(wrapper, name, value)
    else:
        setattr(vars(wrapper)[wrapped], name, value)


def _blank(kind: type) -> Any:
    return object.__new__(kind)
