"""How DeepSpeed's engine shares a step (ZeRO 1 to 3), inside the process group that is there already."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import distributed
from torch.optim import Optimizer

from hpc.connect.process_group import ProcessGroup
from hpc.errors import ConfigurationError
from hpc.strategy.blocks import compile_whole, find_blocks, recompute
from hpc.strategy.contract import Context, check_model
from hpc.strategy.deepspeed_config import read_settings
from hpc.strategy.deepspeed_files import EngineFiles
from hpc.strategy.optimizer import WrappedOptimizer
from hpc.strategy.window import Window


class DeepSpeed:
    """One engine around one model and the optimizer that the training function built.

    The engine scales losses, exchanges gradients, clips and steps by itself. It is told where a window ends, and it is
    given losses that were weighed already. ZeRO 2 and 3 keep only shards of gradients and so exchange them in every
    micro-batch, whatever `set_sync` says.

    Args:
        context: The run's.

    Raises:
        ConfigurationError: DeepSpeed is not installed, or its file contradicts the config.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.settings = read_settings(context.options, context.group.world.world_size)
        self._deepspeed = _import_deepspeed(context.group)
        _check_precision(self._deepspeed, context)
        self._engine: Any = None
        self._optimizer: EngineOptimizer | None = None
        self.prepared_optimizers: list[WrappedOptimizer] = []

    def prepare(self, models: Sequence[torch.nn.Module], optimizers: Sequence[Optimizer]) -> Mapping[int, Any]:
        """See `Strategy.prepare`; the model and its optimizer come in one call."""
        for model in models:
            check_model(model)
        trained = [model for model in models if any(parameter.requires_grad for parameter in model.parameters())]
        ready: dict[int, Any] = {id(model): model.to(self.context.group.device) for model in models}
        if not trained and not optimizers:
            return ready
        if (len(trained), len(optimizers)) != (1, 1) or self._engine is not None:
            raise ConfigurationError(
                "strategy=deepspeed must get one model to train and its optimizer, in one call of prepare, but got "
                f"{len(trained)} and {len(optimizers)}{' more' if self._engine is not None else ''}."
            )
        self._engine = self._initialize(trained[0], optimizers[0])
        self._optimizer = EngineOptimizer(self._engine, optimizers[0], self.context.window)
        self.prepared_optimizers.append(self._optimizer)
        self.context.state.engines["deepspeed"] = EngineFiles(self._engine, self.context.group)
        return {**ready, id(trained[0]): self._engine, id(optimizers[0]): self._optimizer}

    def check_batch_size(self, batch_size: int) -> None:
        """See `Strategy.check_batch_size`."""
        self.settings.check_batch_size(batch_size)

    def set_sync(self, sync: bool) -> None:
        """See `Strategy.set_sync`; `backward` tells the engine."""

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """See `Strategy.backward`; the engine takes no arguments."""
        if kwargs:
            raise ConfigurationError(
                f"strategy=deepspeed calls backward by itself, without arguments, but got {', '.join(kwargs)}."
            )
        self._engine.set_gradient_accumulation_boundary(self.context.window.is_last)
        self._engine.backward(loss, scale_wrt_gas=False)

    def clip_grad_norm_(self, max_norm: float, parameters: Iterable[torch.Tensor] | None) -> torch.Tensor:
        """See `Strategy.clip_grad_norm_`; the engine clips in its step, and the norm holds NaN until then."""
        if self._optimizer is None or parameters is not None:
            raise ConfigurationError("strategy=deepspeed clips all parameters of the model it trains, and no others.")
        self.settings.check_clipping(max_norm)
        return self._optimizer.clip(max_norm)

    def clip_grad_value_(self, clip_value: float, parameters: Sequence[torch.Tensor]) -> None:  # noqa: ARG002
        """See `Strategy.clip_grad_value_`; the engine clips norms only."""
        raise ConfigurationError(
            "strategy=deepspeed clips the norm of gradients and not their elements: write runtime.clip_grad_norm_(1.0)."
        )

    def unwrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """See `Strategy.unwrap`."""
        return model if model is not self._engine else cast("torch.nn.Module", model.module)

    def _initialize(self, model: torch.nn.Module, optimizer: Optimizer) -> Any:
        blocks = find_blocks(model, self.context.options)
        recompute(model, blocks, self.context.options)
        compile_whole(model, blocks, self.context.options)
        self.context.precision.cast_forward(model)
        engine, *_ = self._deepspeed.initialize(
            args=SimpleNamespace(device_rank=self.context.group.device.index or 0),
            model=model,
            optimizer=optimizer,
            config=self.settings.for_engine(),
            dist_init_required=False,
        )
        return engine


class EngineOptimizer(WrappedOptimizer):
    """The user's optimizer, stepped by the engine at the end of a window.

    Args:
        engine: DeepSpeed's.
        optimizer: As torch made it; every other attribute is its own.
        window: Shared with the loop.
    """

    def __init__(self, engine: Any, optimizer: Optimizer, window: Window) -> None:
        super().__init__(optimizer, window)
        self.engine = engine
        self._norm = torch.tensor(math.nan)

    def clip(self, max_norm: float) -> torch.Tensor:
        """Clip in the next step; returns the place where that step leaves the norm."""
        self.engine.optimizer.clip_grad = max_norm  # what the ZeRO optimizers look at (DeepSpeed 0.15-0.19)
        self._norm = torch.tensor(math.nan)
        return self._norm

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step at the end of a window; the engine skips it on every rank when a gradient overflowed.

        Raises:
            ConfigurationError: There is a closure.
        """
        if closure is not None:
            raise ConfigurationError("strategy=deepspeed steps without a closure, but optimizer.step was given one.")
        if not self.window.is_last:
            return
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        self._norm.fill_(math.nan if norm is None else norm)
        self.window.note_step(self.optimizer, taken=self.engine.was_step_applied())

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: the engine forgets gradients when it has stepped."""


def _check_precision(deepspeed: Any, context: Context) -> None:
    supported = deepspeed.accelerator.get_accelerator().supported_dtypes()
    if context.precision.dtype not in (None, *supported):
        raise ConfigurationError(
            f"strategy.precision must be one that DeepSpeed supports on this {context.group.device.type} "
            f"({', '.join(str(each).removeprefix('torch.') for each in supported)}), but is "
            f"{context.options.precision}: use another one, or strategy=fsdp."
        )


def _import_deepspeed(group: ProcessGroup) -> Any:
    """Import it for this device; it reads both from the environment and has no other way to be told (0.15-0.19)."""
    if group.device.type == "cpu":
        group.environ.setdefault("DS_ACCELERATOR", "cpu")
    group.environ.setdefault("LOCAL_RANK", str(group.world.local_rank))
    try:
        deepspeed: Any = importlib.import_module("deepspeed")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"strategy=deepspeed needs {error.name}, which is not installed: pip install 'hpc[deepspeed]'."
        ) from error
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it compiles one for minutes; gloo will do
    if not distributed.is_initialized():  # a world of one, whose engine wants a group all the same
        backend = "cpu:gloo,cuda:nccl" if group.device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=group.store.plain, rank=0, world_size=1)
    return deepspeed
