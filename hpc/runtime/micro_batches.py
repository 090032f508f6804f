"""How much each micro-batch of a window counts, where they do not all count the same.

The mean of means is not the mean: micro-batches of 10 and 1000 tokens, each averaged by itself, weigh a token of the
first a hundred times as much (transformers#34191). Counted ahead, a window's gradient is that of one mean over all
tokens on all ranks, whatever the strategy, because only the losses are scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import distributed

from hpc.connect.process_group import ProcessGroup
from hpc.strategy.window import Window

Weigh = Callable[[Any], Any]
"""Batch -> over how many things its loss is the mean: a number, or a tensor of one element."""


def weighed(
    batches: Iterator[Any], weigh: Weigh, length: Callable[[], int], window: Window, group: ProcessGroup
) -> Iterator[Any]:
    """The same batches, with `window.share` set for each; a window is read, counted and exchanged ahead. Collective.

    Args:
        batches: This rank's.
        weigh: What each counts.
        length: Micro-batches of the window that begins.
        window: Gets the shares.
        group: All ranks.
    """
    try:
        while ahead := list(islice(batches, length())):
            for batch, share in zip(ahead, _shares([weigh(batch) for batch in ahead], group), strict=True):
                window.share = share
                yield batch
    finally:
        window.share = None


def _shares(weights: list[Any], group: ProcessGroup) -> torch.Tensor:
    """Each micro-batch's part of the weight on all ranks, times the ranks, since gradients are averaged over them."""
    mine = torch.stack([torch.as_tensor(weight, dtype=torch.float32, device=group.device) for weight in weights])
    total = mine.sum()
    if group.world.world_size > 1:
        distributed.all_reduce(total)
    return mine * (group.world.world_size / total)
