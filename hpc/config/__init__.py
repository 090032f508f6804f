"""What may be configured, and whether it can be."""

from __future__ import annotations

from hpc.config.checks import CHOICES, plain, register_schema, sentence, settings_of
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

__all__ = [
    "CHOICES",
    "CheckpointOptions",
    "Cluster",
    "Experiment",
    "Hardware",
    "Launch",
    "Profile",
    "RuntimeOptions",
    "Settings",
    "StrategyOptions",
    "plain",
    "register_schema",
    "sentence",
    "settings_of",
]
