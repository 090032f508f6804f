"""Which function does a run train with?"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from hpc.errors import ConfigurationError
from hpc.say import phase

LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
"""What tells a function whose call runs nothing of it."""


def training_function(target: str) -> Callable[[Any], Any]:
    """Import `module.function`; an error inside the module is the user's own, and keeps its traceback.

    Raises:
        ConfigurationError: There is no such module or function, or it cannot be called with a config.
    """
    module_name, _, name = target.rpartition(".")
    try:
        with phase(f"Importing {module_name}, and torch with it"):
            function = getattr(importlib.import_module(module_name), name, None)
    except (ModuleNotFoundError, ValueError) as error:
        if not module_name.startswith(getattr(error, "name", module_name)):
            raise
        function = None
    if not callable(function):
        raise ConfigurationError(
            f"experiment.target must be an importable module.function, but is {target}: "
            "correct it, or put its directory on PYTHONPATH."
        )
    _check_call(target, function)
    result: Callable[[Any], Any] = function
    return result


def _check_call(target: str, function: Callable[..., Any]) -> None:
    """Before anything is written: a call that cannot be made, and one that returns without having trained."""
    if any(trains_later(function) for trains_later in LATER):
        raise ConfigurationError(
            f"experiment.target must be a function that trains when it is called, but {target} only returns what would "
            "train: it is `async`, or has `yield` in it."
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C, which tells nothing
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise ConfigurationError(
            f"experiment.target must be a function of one argument, the config, but {target} takes {signature}: "
            f"{error}."
        ) from error
