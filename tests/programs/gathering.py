"""The smallest training there is: every rank hears of every other, and nothing is learnt."""

from __future__ import annotations

from typing import Any

from hpc import Runtime


def train(cfg: Any) -> int:
    """The sum of all ranks' numbers plus one."""
    with Runtime(cfg) as runtime:
        return sum(runtime.gather(runtime.world.rank + 1))
