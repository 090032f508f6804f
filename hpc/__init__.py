"""One PyTorch training loop: for a laptop, a node or a Slurm cluster, with nothing lost on preemption."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpc.world import World, resolve_world

if TYPE_CHECKING:
    from hpc.runtime.runtime import Runtime

__all__ = ["Runtime", "World", "resolve_world"]


def __getattr__(name: str) -> Any:
    """Import torch when Runtime is asked for, and not before: login nodes import this package too."""
    if name == "Runtime":
        from hpc.runtime.runtime import Runtime  # deferred: it imports torch

        return Runtime
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
