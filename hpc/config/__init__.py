"""What may be configured, and whether it can be.

The names below are found in their files when they are first asked for: who only looks for secrets, as `hpc status`
does, need not wait for omegaconf.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc.config.changes import forbidden_changes, leaves
    from hpc.config.checks import register_schema, settings_of
    from hpc.config.given import as_config, plain, read_config
    from hpc.config.schema import (
        CheckpointOptions,
        Cluster,
        Container,
        Experiment,
        Hardware,
        Launch,
        Profile,
        RuntimeOptions,
        Settings,
        StrategyOptions,
    )
    from hpc.config.sentences import sentence

__all__ = [
    "CheckpointOptions",
    "Cluster",
    "Container",
    "Experiment",
    "Hardware",
    "Launch",
    "Profile",
    "RuntimeOptions",
    "Settings",
    "StrategyOptions",
    "as_config",
    "forbidden_changes",
    "leaves",
    "plain",
    "read_config",
    "register_schema",
    "sentence",
    "settings_of",
]
_FILES = {
    "as_config": "given",
    "forbidden_changes": "changes",
    "leaves": "changes",
    "plain": "given",
    "read_config": "given",
    "register_schema": "checks",
    "sentence": "sentences",
    "settings_of": "checks",
}
"""Where a name is defined; all others are the schema's."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES.get(name, 'schema')}"), name)
