"""How does the content of an older checkpoint become what today's would be?

Format 1 (version 0.1) kept every tensor of an optimizer as `optimizer/<parameter>/<key>`, let trainer.pt hold
values as they were, and counted schedulers together with everything else that was registered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hpc.checkpoint.manifest import FORMAT, Written
from hpc.checkpoint.names import below, kind
from hpc.checkpoint.plain import TAG

_SCHEDULER = re.compile(r"scheduler\.(\d+)")


def upgraded(trainer: Mapping[str, Any], written: Written, written_format: int) -> dict[str, Any]:
    """The content of trainer.pt as the newest format has it.

    Args:
        trainer: As it was read.
        written: What the manifest says.
        written_format: Of the checkpoint.
    """
    if written_format == FORMAT:
        return dict(trainer)
    optimizers = [_optimizer(each, below(kind("optimizer", n), written.tensors), kind("optimizer", n))
                  for n, each in enumerate(trainer["optimizers"])]  # fmt: skip
    return {**trainer, "optimizers": optimizers, "others": _renumbered(trainer["others"])}


def _optimizer(plain: Mapping[str, Any], names: Mapping[str, Any], which: str) -> dict[str, Any]:
    state = {name: dict(values) for name, values in plain["state"].items()}
    for name in names:
        parameter, key = name.rsplit("/", 1)
        state.setdefault(parameter, {})[key] = {TAG: "tensor", "device": "cpu", "name": f"{which}/{name}"}
    return {"groups": plain["groups"], "state": state}


def _renumbered(others: Mapping[str, Any]) -> dict[str, Any]:
    schedulers = sorted((name for name in others if _SCHEDULER.fullmatch(name)), key=lambda name: int(name[10:]))
    numbers = {name: f"scheduler.{number}" for number, name in enumerate(schedulers)}
    return {numbers.get(name, name): state for name, state in others.items()}
