"""How `HydraConfig.get()` and the like answer in a job as they do in the process that Hydra itself has started."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from hpc.task.imports import afterwards, around_import

MODULE = "hydra.core.hydra_config"


def restore(known: Mapping[str, Any]) -> None:
    """Let HydraConfig tell what it told of this point when it was frozen, as soon as somebody imports it.

    Importing Hydra takes a tenth of a second, and few training functions ask it.

    Args:
        known: `Point.hydra`; where it is empty, Hydra was not asked, and HydraConfig says so itself.
    """
    tell = partial(_tell, known)
    if known and not around_import(MODULE, afterwards(tell)):
        tell()


def _tell(known: Mapping[str, Any]) -> None:
    from hydra.conf import HydraConf  # deferred: it is being imported when this is called
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf  # deferred, as above

    hydra = OmegaConf.merge(OmegaConf.structured(HydraConf), known)
    HydraConfig.instance().set_config(OmegaConf.create({"hydra": hydra}))
