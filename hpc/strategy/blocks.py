"""Which layers of a model are treated one by one, and what may be done to a layer without renaming anything in it.

Everything here replaces a module's `forward`: a wrapper module or a compiled one would put its own prefix before every
name in the state dict, and hooks, which is how FSDP gathers parameters, stay outside.
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
"""Hold layers and are never called."""


def find_blocks(model: nn.Module, options: StrategyOptions) -> list[nn.Module]:
    """The layers that are sharded, recomputed or compiled one by one, outer before inner, never the model itself.

    By class name, or the innermost modules of at least `min_block_parameters`, or, where neither is given, the elements
    of the outermost ModuleLists and Sequentials, which is where torch models keep their layers. A module that shares a
    parameter with the rest of the model is no block: what is tied must be sharded together.

    Raises:
        ConfigurationError: The model has no module of a class that was named.
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
    """Let every block keep only its inputs, and compute the rest again, if `strategy.activation_checkpointing` says so.

    Models of Transformers remember keys and values for text generation while they train, and would do so twice.

    Raises:
        ConfigurationError: There are no blocks.
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
    """Compile the modules one by one when their first batch comes, if `strategy.compile` says so."""
    if options.compile is False:
        return
    mode = options.compile if isinstance(options.compile, str) else None
    for module in modules:
        module.forward = torch.compile(module.forward, mode=mode, backend=options.compile_backend)


def compile_whole(model: nn.Module, blocks: Sequence[nn.Module], options: StrategyOptions) -> None:
    """Compile the whole model, which leaves the compiler the most to fuse, unless blocks were asked for by name."""
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
    """Inner before outer; a module's parameters count for the innermost block that they are in."""
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
    """Whether no parameter of the block has a name outside it, too."""
    return all(names[parameter] == count for parameter, count in _names(block).items())


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return wrapped
