"""One PyTorch training loop: for a laptop, a node or a Slurm cluster, with nothing lost on preemption."""

import sys

if sys.argv[:1] == ["-m"] and not {"hpc", "-mhpc"}.isdisjoint(sys.orig_argv) and not getattr(sys.flags, "safe_path", 0):
    del sys.path[0]  # `python -m hpc` in a stranger's folder, with a json.py in it; hpc.cli brings it back to train

import importlib
from typing import TYPE_CHECKING, Any

from hpc.world import World, resolve_world

if TYPE_CHECKING:
    from hpc.launch.notebook import notebook_launcher
    from hpc.runtime.batch_size import find_executable_batch_size
    from hpc.runtime.runtime import Runtime
    from hpc.runtime.seeds import seed_everything

__all__ = ["Runtime", "World", "find_executable_batch_size", "notebook_launcher", "resolve_world", "seed_everything"]

NEED_TORCH = {
    "Runtime": "hpc.runtime.runtime",
    "find_executable_batch_size": "hpc.runtime.batch_size",
    "notebook_launcher": "hpc.launch.notebook",
    "seed_everything": "hpc.runtime.seeds",
}


def __getattr__(name: str) -> Any:
    """Import torch when something that needs it is asked for, and not before: login nodes import this package too."""
    if name in NEED_TORCH:
        return getattr(importlib.import_module(NEED_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
