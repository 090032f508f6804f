"""A training function that tells what its process has imported, and when."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

from torch import nn

from hpc import Runtime


def tell(cfg: Any) -> None:
    """Prepare a model. Torch's own DDP and optimizers import most of what is looked for here, so it comes after."""
    with Runtime(cfg) as runtime:
        imported, is_on, kept = [*sys.modules], gc.isenabled(), gc.get_freeze_count()
        runtime.prepare(nn.Linear(2, 1))
        from hydra.core.hydra_config import HydraConfig

        told = {
            "imported": imported,
            "collects": is_on,
            "kept": kept,
            "hardware": HydraConfig.get().runtime.choices["hardware"],
            "strategy": type(runtime.strategy).__name__,
        }
        Path(cfg.told, f"{runtime.process_index}.json").write_text(json.dumps(told))
