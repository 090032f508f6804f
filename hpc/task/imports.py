"""What is done when the user's code, or ours, imports a certain module; nothing where nobody does."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def around_import(name: str, manager: AbstractContextManager[object]) -> bool:
    """Enter `manager` while the module is imported.

    Args:
        name: The module's.
        manager: For one use.

    Returns:
        False where the module has been imported before, and nothing follows.
    """
    if name in sys.modules:
        return False
    sys.meta_path.insert(0, _Around(name, manager))
    return True


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is looked for inside, and what was made inside is never looked through again.

    Modules stay to the end. Yet Python's collector looks through the hundred thousand objects of `import torch` again
    and again while they come, and in each full collection of the training loop. That is a tenth of the import's time,
    and as much of that of the imports after it.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


@contextmanager
def afterwards(call: Callable[[], None]) -> Iterator[None]:
    """Call it at the end of the block, if that succeeds."""
    yield
    call()


class _Around(MetaPathFinder):
    """Lets the other finders find the module, and has it executed inside the context manager."""

    def __init__(self, name: str, manager: AbstractContextManager[object]) -> None:
        self.name, self.manager = name, manager

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            loader, execute = spec.loader, spec.loader.exec_module

            def inside(module: ModuleType) -> None:
                with self.manager:
                    execute(module)

            loader.exec_module = inside  # type: ignore[method-assign]  # of this one spec; inspect needs its other methods
        return spec
