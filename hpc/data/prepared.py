"""What a prepared loader has in common with the DataLoader that it wraps: everything that can be asked of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from hpc.connect.process_group import ProcessGroup
from hpc.data.rows import CurrentRows
from hpc.data.share import Share
from hpc.errors import ConfigurationError
from hpc.stop.activity import EVALUATING, activity


class Prepared(DataLoader[Any]):
    """A DataLoader to whoever asks; its attributes are those of the user's loader.

    Args:
        loader: The user's.
        group: This rank among the others.
        share: Which part of each micro-batch is this rank's.
        current: Told which rows of each batch of a pass are samples.
    """

    loader: DataLoader[Any]
    group: ProcessGroup
    device: torch.device
    share: Share
    current: CurrentRows
    passes: int

    def __init__(self, loader: DataLoader[Any], group: ProcessGroup, share: Share, current: CurrentRows) -> None:
        # not super().__init__: what it would set is asked of the user's loader
        vars(self).update(loader=loader, group=group, device=group.device, share=share, current=current, passes=0)

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # asked for by copy and pickle before there is one
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self) or not hasattr(self.loader, name):
            object.__setattr__(self, name, value)
        else:
            setattr(self.loader, name, value)

    def __reduce__(self) -> Any:
        raise ConfigurationError(
            "A prepared loader cannot be copied or pickled, because it belongs to this rank: copy the DataLoader that "
            "was given to prepare."
        )

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be that of another epoch, counted from 0; without it, each is that of the next one."""
        self.passes = epoch

    def _next_pass(self) -> int:
        self.passes += 1
        return self.passes - 1


def evaluating(batches: Iterable[Any]) -> Iterator[Any]:
    """The same batches; whoever looks for a rank that does not go on sees that it evaluates, and that it goes on."""
    doing = activity()
    with doing.during(EVALUATING):
        for batch in batches:
            doing.batches += 1
            yield batch
