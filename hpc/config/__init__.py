"""What may be configured, and whether it can be."""

from __future__ import annotations

from hpc.config.changes import forbidden_changes, leaves
from hpc.config.checks import plain, register_schema, settings_of
from hpc.config.schema import (
    CheckpointOptions,
    Cluster,
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
    "Experiment",
    "Hardware",
    "Launch",
    "Profile",
    "RuntimeOptions",
    "Settings",
    "StrategyOptions",
    "forbidden_changes",
    "leaves",
    "plain",
    "register_schema",
    "sentence",
    "settings_of",
]
