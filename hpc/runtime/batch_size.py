"""How much fits into memory, and what to do when a batch does not."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import torch

from hpc.errors import ConfigurationError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "CUDNN_STATUS_NOT_SUPPORTED")
"""What a RuntimeError says when it means memory: the CPU's and MPS's allocators, and cuDNN where it found no room
for a workspace. CUDA's has a class of its own."""


def find_executable_batch_size(
    *, starting_batch_size: int = 128
) -> Callable[[Callable[Concatenate[int, Parameters], Result]], Callable[Parameters, Result]]:
    """Decorates a function whose first parameter is the batch size: it is called with half as much until it fits.

    The function must make its Runtime, model and loaders itself, so that nothing of an attempt is left for the next.
    Where there are several ranks, all must run out of memory alike; one alone would leave the others waiting.

    Args:
        starting_batch_size: Tried first.
    """

    def decorate(function: Callable[Concatenate[int, Parameters], Result]) -> Callable[Parameters, Result]:
        @functools.wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            batch_size = starting_batch_size
            while batch_size:
                try:
                    return function(batch_size, *args, **kwargs)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                _free()  # out here the traceback, and the tensors of its frames, are gone
                batch_size //= 2
            raise ConfigurationError(
                f"starting_batch_size must lead to a batch that fits into memory, but from {starting_batch_size} down "
                "to 1 none does: use a smaller model, shard it (strategy=fsdp), or use larger GPUs."
            )

        return call

    return decorate


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory, of the host or the device, was not enough."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
