"""How `HydraConfig.get()` and the like answer in a job as they do in the process that Hydra itself has started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def restore(known: Mapping[str, Any]) -> None:
    """Let HydraConfig tell what it told of this point when it was frozen.

    Args:
        known: `Point.hydra`; where it is empty, Hydra was not asked, and HydraConfig says so itself.
    """
    if not known:
        return
    from hydra.conf import HydraConf  # deferred: programs that do without Hydra need not wait for it
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf  # deferred, as above

    hydra = OmegaConf.merge(OmegaConf.structured(HydraConf), known)
    HydraConfig.instance().set_config(OmegaConf.create({"hydra": hydra}))
