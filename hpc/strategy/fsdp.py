"""How do ranks share a step when each has a part of the model? With torch's FSDP2 (`fully_shard`)."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from hpc.connect.process_group import ProcessGroup
from hpc.errors import ConfigurationError
from hpc.strategy.blocks import compile_forward
from hpc.strategy.contract import Context
from hpc.strategy.optimizer import PreparedOptimizer
from hpc.strategy.sharded_optimizers import check_steps, has_stepped, sharded_state
from hpc.strategy.single import Single


class FSDP(Single):
    """Parameters, gradients and optimizer state are divided among the ranks, block by block.

    FSDP2 puts sharded parameters in the place of the model's own. An optimizer that was built before still has the old
    ones, so they are replaced in its groups. A gradient is the mean over all ranks, as with DDP.

    Args:
        context: The run's.

    Raises:
        ConfigurationError: `strategy.shard_size` does not divide the world size, or this torch has no FSDP2 for CPUs.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        _check_device(context.group.device)
        self.mesh = _mesh(context.group, context.options.shard_size)
        self._sharded: list[FSDPModule] = []
        self._successors = Successors()

    def set_sync(self, sync: bool) -> None:
        """See `Strategy.set_sync`."""
        for model in self._sharded:
            model.set_requires_gradient_sync(sync)

    def _compile(self, model: nn.Module, blocks: Sequence[nn.Module]) -> None:
        """Block by block, because a compiled graph cannot contain the hooks that gather a block's parameters."""
        compile_forward(blocks or [model], self.context.options)

    def _share(self, model: nn.Module, blocks: Sequence[nn.Module]) -> nn.Module:
        _check_shardable(model)
        before = dict(model.named_parameters(remove_duplicate=False))
        policies = self._policies()
        for module in (*reversed(blocks), model):
            _broadcast(module, self.context.group.device)
            fully_shard(module, mesh=self.mesh, **policies)
        self._successors.add(before, dict(model.named_parameters(remove_duplicate=False)))
        if isinstance(model, FSDPModule):
            self._sharded.append(model)
        return model

    def _policies(self) -> dict[str, Any]:
        """The same for every module: an output dtype of its own would not fit a block that follows in bf16."""
        options, device, dtype = self.context.options, self.context.group.device, self.context.precision.dtype
        offload = CPUOffloadPolicy(pin_memory=device.type == "cuda") if options.cpu_offload else OffloadPolicy()
        return {
            "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None),
            "offload_policy": offload,
            "reshard_after_forward": options.reshard_after_forward,
        }

    def _prepare_optimizer(self, optimizer: Optimizer) -> PreparedOptimizer:
        self._successors.enter(optimizer)
        return super()._prepare_optimizer(optimizer)

    def _clip(self, parameters: Sequence[torch.Tensor], max_norm: float) -> torch.Tensor:
        return clip_sharded(parameters, max_norm)


class Successors:
    """Which sharded parameter replaced which whole one. Weak references let the whole ones be freed."""

    def __init__(self) -> None:
        self._new: dict[int, tuple[weakref.ref[nn.Parameter], nn.Parameter]] = {}
        self._sharded: set[nn.Parameter] = set()

    def add(self, before: Mapping[str, nn.Parameter], after: Mapping[str, nn.Parameter]) -> None:
        """Remember a model's parameters.

        Args:
            before: Name -> whole parameter, with all its names.
            after: Name -> sharded parameter.
        """
        self._new.update((id(old), (weakref.ref(old), after[name])) for name, old in before.items())
        self._sharded.update(after.values())

    def enter(self, optimizer: Optimizer) -> None:
        """Let an optimizer train the sharded parameters instead of the whole ones.

        Raises:
            ConfigurationError: It has state for whole parameters, or trains one that belongs to no prepared model.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if has_stepped(optimizer) and not self._sharded.issuperset(parameters):
            raise ConfigurationError(
                f"strategy=fsdp must get the {type(optimizer).__name__} before its first step, because its state is "
                "that of whole parameters, but it has stepped already: prepare it first."
            )
        for group in optimizer.param_groups:
            group["params"][:] = [self._of(parameter) for parameter in group["params"]]
        for old in parameters:
            if old in optimizer.state and old not in self._sharded:
                new = self._of(old)
                optimizer.state[new] = sharded_state(optimizer.state.pop(old), old, new)
        check_steps(optimizer)

    def _of(self, parameter: nn.Parameter) -> nn.Parameter:
        if parameter in self._sharded:
            return parameter
        reference, new = self._new.get(id(parameter), (None, parameter))
        if reference is None or reference() is not parameter:
            raise ConfigurationError(
                "strategy=fsdp must know every parameter that an optimizer trains, but one of shape "
                f"{list(parameter.shape)} belongs to no prepared model: prepare the model first, or in the same call."
            )
        return new


def clip_sharded(parameters: Sequence[torch.Tensor], max_norm: float) -> torch.Tensor:
    """`torch.nn.utils.clip_grad_norm_` for sharded and whole parameters together, which torch's own refuses.

    Returns:
        The norm over all of them before clipping: a scalar, not a DTensor, and the same on every rank.
    """
    kinds = [[each for each in parameters if isinstance(each, DTensor) == sharded] for sharded in (True, False)]
    norms = [_norm([each.grad for each in kind if each.grad is not None]) for kind in kinds]
    total: torch.Tensor = torch.linalg.vector_norm(
        torch.stack([norm for norm in norms if norm is not None] or [torch.zeros(())])
    )
    for kind in kinds:
        torch.nn.utils.clip_grads_with_norm_(kind, max_norm, total)
    return total


def _norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor | None:
    if not gradients:
        return None
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _check_device(device: torch.device) -> None:
    """Refuse CPUs with torch 2.6: FSDP2 needs stream events, and that version has none for CPUs."""
    if device.type == "cpu" and not hasattr(torch.cpu.Stream, "record_event"):
        raise ConfigurationError(
            f"strategy=fsdp must have accelerators with torch {torch.__version__}, but runtime.device is cpu: take "
            "strategy=ddp, or a newer torch."
        )


def _mesh(group: ProcessGroup, shard_size: int | None) -> DeviceMesh:
    """A mesh of one dimension over all ranks, or of two: copies × shards."""
    ranks, kind = group.world.world_size, group.device.type
    if shard_size is None or shard_size >= ranks:
        return init_device_mesh(kind, (ranks,), mesh_dim_names=("shard",))
    if ranks % shard_size:
        raise ConfigurationError(
            f"strategy.shard_size must divide the world size ({ranks}), so that copies are whole, but is {shard_size}."
        )
    return init_device_mesh(kind, (ranks // shard_size, shard_size), mesh_dim_names=("replicate", "shard"))


def _check_shardable(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if isinstance(parameter, DTensor):
            raise ConfigurationError(f"prepare takes whole models, but {name} is sharded already: prepare it once.")
        if parameter.dim() == 0:
            raise ConfigurationError(
                f"strategy=fsdp needs parameters with a dimension to divide, but {name} is a scalar: give it shape [1]."
            )


def _broadcast(module: nn.Module, device: torch.device) -> None:
    """Copy rank 0's values to every rank, as DDP does: shards of differently initialised models would not fit."""
    for tensor in (*module.parameters(), *module.buffers()):
        if not isinstance(tensor, DTensor):  # the blocks inside were sharded, and broadcast, before
            tensor.data = tensor.data.to(device)
            distributed.broadcast(tensor.data, src=0)
