"""`python run.py` and `hpc run`: compose the config, then train here or, with -m, submit."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hpc.config import sentence
from hpc.errors import ConfigurationError, HpcError
from hpc.paths import CONF_DIR
from hpc.say import fail


def main(arguments: list[str] | None = None, config_directory: str | Path = CONF_DIR) -> None:
    """Run Hydra's command line over a configuration directory.

    Args:
        arguments: As typed, without the program's name; those of this process when not given.
        config_directory: Holds `config.yaml`; its defaults list may name hpc's groups.

    Raises:
        SystemExit: 78 after one sentence when something is configured wrongly; the run's own code when it fails.
    """
    try:
        for config in _composed(sys.argv[1:] if arguments is None else arguments, Path(config_directory).absolute()):
            _train(config)
    except HpcError as error:
        _exit(error)
    except (HydraException, OmegaConfBaseException) as error:
        told = sentence(error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error)
        _exit(ConfigurationError(told), error)


def _composed(arguments: list[str], config_directory: Path) -> list[DictConfig]:
    """What Hydra would call a task function with; nothing after -m, because the launcher has submitted by then.

    Training starts after Hydra is done, so that Hydra neither reports its errors nor stands in its tracebacks.
    """
    import hydra  # deferred: `hpc world` need not wait for it

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print, and leaves the exit code to us
    sys.argv[1:] = arguments
    configs: list[DictConfig] = []
    hydra.main(version_base="1.3", config_path=str(config_directory), config_name="config")(configs.append)()
    return configs


def _train(config: DictConfig) -> None:
    from hpc.submit.freeze import freeze_point  # deferred, with the worker: a sweep does not come this way
    from hpc.task.entry import run_here

    directory = Path(OmegaConf.select(config, "run_dir") or ".").absolute()
    run_here(freeze_point(directory, ".", config).config)


def _exit(error: HpcError, cause: Exception | None = None) -> None:
    """Say what is wrong and end; HPC_TRACEBACK=1 shows the cause as well, which is Hydra's or OmegaConf's own error."""
    error.__cause__ = error.__cause__ or cause
    fail(error)
    raise SystemExit(error.exit_code)
