"""What may be configured, and whether it can be."""

from __future__ import annotations

from hpc.config.checks import CHOICES, register_schema, sentence, settings_of
from hpc.config.schema import (
    CheckpointOptions,
    Cluster,
    Experiment,
    Hardware,
    Launch,
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
    "RuntimeOptions",
    "Settings",
    "StrategyOptions",
    "register_schema",
    "sentence",
    "settings_of",
]
