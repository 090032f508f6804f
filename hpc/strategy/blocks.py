"""Which layers of a model are sharded, recomputed or compiled one by one?

Recomputing and compiling replace a module's `forward` and nothing else. A wrapper module would put a prefix before
every name in the state dict. FSDP's hooks, which gather the parameters, run before and after the replaced `forward`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hpc.config import StrategyOptions
from hpc.errors import ConfigurationError

CONTAINERS = (nn.ModuleList, nn.ModuleDict)
"""Classes that hold layers and are never called themselves."""


def find_blocks(model: nn.Module, options: StrategyOptions) -> list[nn.Module]:
    """The layers that are sharded, recomputed or compiled one by one, outer before inner, never the model itself.

    They are the modules of the classes in `blocks`, or the innermost modules with at least `min_block_parameters`
    parameters. Where neither is given, they are the elements of the outermost ModuleLists and Sequentials, where most
    models keep their layers. A module that shares a parameter with the rest of the model is never a block, because tied
    parameters must be sharded together.

    Raises:
        ConfigurationError: The model has no module of a class that `blocks` names.
    """
    if options.blocks:
        found = _of_classes(model, options.blocks)
    elif options.min_block_parameters is not None:
        found = list(_of_size(model, options.min_block_parameters))[::-1]
    else:
        found = list(_elements(model))
    names = _names(model)
    return [block for block in found if _is_callable_layer(block) and _has_all_names(block, names)]


def recompute(model: nn.Module, blocks: Sequence[nn.Module], options: StrategyOptions) -> None:
    """With `strategy.activation_checkpointing`, each block keeps only its inputs and computes the rest again.

    The cache of Transformers models is turned off: it keeps keys and values for text generation even in training, and
    would store them a second time when a block is computed again.

    Raises:
        ConfigurationError: The model has no blocks.
    """
    if not options.activation_checkpointing:
        return
    if not blocks:
        raise ConfigurationError(
            "strategy.activation_checkpointing needs layers to compute again, but none were found: "
            "name their classes in strategy.blocks."
        )
    config: Any = getattr(model, "config", None)
    if getattr(config, "use_cache", False):
        config.use_cache = False
    for block in blocks:
        block.forward = _checkpointed(block.forward)


def compile_forward(modules: Iterable[nn.Module], options: StrategyOptions) -> None:
    """With `strategy.compile`, compile the modules one by one; torch does it when their first batch comes."""
    if options.compile is False:
        return
    mode = options.compile if isinstance(options.compile, str) else None
    for module in modules:
        module.forward = torch.compile(module.forward, mode=mode, backend=options.compile_backend)


def compile_whole(model: nn.Module, blocks: Sequence[nn.Module], options: StrategyOptions) -> None:
    """Compile the whole model, which the compiler can fuse best, or the blocks where `strategy.blocks` names them."""
    compile_forward(blocks if options.blocks else [model], options)


def _of_classes(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    inner = [module for module in model.modules() if module is not model]
    present = {type(module).__name__ for module in inner}
    absent = [name for name in names if name not in present]
    if absent:
        raise ConfigurationError(
            f"strategy.blocks must name classes of modules in {type(model).__name__} "
            f"({', '.join(sorted(present))}), but names {', '.join(absent)}."
        )
    return [module for module in inner if type(module).__name__ in names]


def _of_size(model: nn.Module, minimum: int) -> Iterator[nn.Module]:
    """Large enough modules, inner before outer. A parameter counts only for the innermost block that it is in."""
    taken: set[nn.Parameter] = set()
    for module in reversed(list(model.modules())[1:]):
        own = [parameter for parameter in module.parameters() if parameter not in taken]
        if not isinstance(module, CONTAINERS) and sum(parameter.numel() for parameter in own) >= minimum:
            taken.update(own)
            yield module


def _elements(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            yield child
        else:
            yield from _elements(child)


def _is_callable_layer(module: nn.Module) -> bool:
    return not isinstance(module, CONTAINERS) and any(True for _ in module.parameters())


def _names(module: nn.Module) -> Counter[nn.Parameter]:
    """How many names each parameter has."""
    return Counter(parameter for _, parameter in module.named_parameters(remove_duplicate=False))


def _has_all_names(block: nn.Module, names: Counter[nn.Parameter]) -> bool:
    """Whether all names of the block's parameters are inside the block: none of them is shared with the outside."""
    return all(names[parameter] == count for parameter, count in _names(block).items())


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return wrapped
