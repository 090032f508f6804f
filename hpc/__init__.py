"""One PyTorch training loop: for a laptop, a node or a Slurm cluster, with nothing lost on preemption."""

import sys

if sys.argv[:1] == ["-m"] and not {"hpc", "-mhpc"}.isdisjoint(sys.orig_argv) and not getattr(sys.flags, "safe_path", 0):
    del sys.path[0]  # `python -m hpc` in a stranger's folder, with a json.py in it; hpc.cli brings it back to train

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc.launch.notebook import notebook_launcher
    from hpc.runtime.batch_size import find_executable_batch_size
    from hpc.runtime.runtime import Runtime
    from hpc.runtime.seeds import seed_everything
    from hpc.world import World, resolve_world

__all__ = ["Runtime", "World", "find_executable_batch_size", "notebook_launcher", "resolve_world", "seed_everything"]

FILES = {
    "Runtime": "hpc.runtime.runtime",
    "World": "hpc.world.world",
    "find_executable_batch_size": "hpc.runtime.batch_size",
    "notebook_launcher": "hpc.launch.notebook",
    "resolve_world": "hpc.world.resolve",
    "seed_everything": "hpc.runtime.seeds",
}
"""Where each name is defined."""


def __getattr__(name: str) -> Any:
    """Import what a name needs when it is asked for, and not before: login nodes import this package too.

    Most names need torch, and `hpc status` none of them.
    """
    if name in FILES:
        return getattr(importlib.import_module(FILES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
