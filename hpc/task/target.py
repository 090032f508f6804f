"""Which function does a run train with?"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from hpc.errors import ConfigurationError
from hpc.say import phase


def training_function(target: str) -> Callable[[Any], Any]:
    """Import `module.function`; an error inside the module is the user's own, and keeps its traceback.

    Raises:
        ConfigurationError: There is no such module or function.
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
    result: Callable[[Any], Any] = function
    return result
