"""Which rank is this process, among how many, on which nodes, and who says so? Free of torch.

The names below are found in their files when they are first asked for: who only reads a list of nodes, as `hpc status`
does, need not wait for all launchers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc.world.hostlist import expand_hostlist, expand_tasks_per_node
    from hpc.world.resolve import Candidate, Explanation, explain_world, resolve_world
    from hpc.world.world import World

__all__ = [
    "Candidate",
    "Explanation",
    "World",
    "expand_hostlist",
    "expand_tasks_per_node",
    "explain_world",
    "resolve_world",
]
_FILES = {"World": "world", "expand_hostlist": "hostlist", "expand_tasks_per_node": "hostlist"}
"""Where a name is defined; all others are in resolve.py."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES.get(name, 'resolve')}"), name)
