"""`python run.py` and `hpc run`: compose the config, then train here or, with -m, submit."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hpc.cli.surroundings import readable, surroundings
from hpc.config import sentence
from hpc.environ import process_environ
from hpc.errors import ConfigurationError, HpcError
from hpc.paths import CONF_DIR
from hpc.say import fail

LAUNCHER = "hydra_plugins.hpc.launcher.HpcLauncher"
USAGE = """\
Usage: {program} [OPTIONS] [SETTING=VALUE]...

  Train in this process; with -m, submit one job or a whole sweep to Slurm, and return.

    {program} steps=100                                            # here
    {program} -m hardware=8xA100                                   # one job
    {program} -m hardware=8xA100 seed=0,1 optimizer.lr=1e-3,3e-4   # an array of four

Options:
  -m, --multirun       Submit. `hpc script` with the same words prints what would be sent.
  --config-path DIR    Where config.yaml lies: conf, in a project that `hpc init project` has written.
  --config-name NAME   Another file than config.yaml.
  --cfg job            Print the composed configuration, and stop.
  --hydra-help         The other options, which are Hydra's.

docs/settings.md explains every setting. These are the ones of this configuration, and the files of its groups:
"""
READERS = ("hydra", "omegaconf", "yaml", "antlr4", "codecs")
"""Packages whose errors say that a command line or a config cannot be read."""


def main(arguments: list[str] | None = None, config_directory: str | Path = CONF_DIR) -> None:
    """Run Hydra's command line over a configuration directory.

    Args:
        arguments: As typed, without the program's name; those of this process when not given.
        config_directory: Holds `config.yaml`; its defaults list may name hpc's groups.

    Raises:
        SystemExit: 78 after one sentence when something is configured wrongly; the run's own code when it fails.
    """
    typed = sys.argv[1:] if arguments is None else arguments
    try:
        with surroundings():
            if {"-h", "--help"} & {*typed}:
                program = "hpc run" if arguments is not None else f"python {sys.argv[0]}"
                print(USAGE.format(program=program), end="", flush=True)
            directory = Path.cwd() / config_directory  # asked before Hydra does, in whose words nobody would know it
            for config in _composed(typed, directory):
                _train(config)
    except BrokenPipeError:  # whoever read the answer has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except HpcError as error:
        fail(error)
        raise SystemExit(error.exit_code) from error


def _composed(arguments: list[str], config_directory: Path) -> list[DictConfig]:
    """What Hydra would call a task function with; nothing after -m, because the launcher has submitted by then.

    Training starts after Hydra is done, so that Hydra neither reports its errors nor stands in its tracebacks.
    """
    import hydra  # deferred: `hpc world` need not wait for it
    from hydra.core.hydra_config import HydraConfig  # deferred, as above

    configs: list[DictConfig] = []

    def keep(config: DictConfig) -> None:
        with open_dict(config):
            config.hydra = HydraConfig.get()
        if OmegaConf.is_missing(config.hydra.job, "num"):  # a run by itself is the first of one, as in a job
            with read_write(config.hydra):
                config.hydra.job.id, config.hydra.job.num = "0", 0
        configs.append(config)

    _only_our_launcher()
    process_environ()["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print, and leaves the exit code to us
    sys.argv[1:] = _checked(arguments, config_directory)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="provider=.* is not available")  # a search path leads nowhere
            hydra.main(config_path=str(config_directory), config_name="config", **_version_base())(keep)()
    except HpcError:
        raise
    except Exception as error:
        is_about_output = isinstance(error, OSError) and error.errno is not None and error.filename is None
        if is_about_output or not _is_about_configs(error):
            raise
        raise ConfigurationError(sentence(error)) from error
    return configs


def _only_our_launcher() -> None:
    """Others would call back here or in jobs of their own, where nobody trains; and sweepers write before they do."""
    from hydra.core.plugins import Plugins  # deferred, as above

    plugins = Plugins.instance()
    instantiate = type(plugins).instantiate_launcher

    def checked(*, config: DictConfig, **more: Any) -> Any:
        target = OmegaConf.select(config, "hydra.launcher._target_")
        if target != LAUNCHER:
            raise ConfigurationError(
                f"hydra/launcher must be hpc for a sweep, but is {target}: "
                "write `override hydra/launcher: hpc` into the defaults list of your config."
            )
        return instantiate(plugins, config=config, **more)

    plugins.instantiate_launcher = checked  # type: ignore[method-assign, assignment]


def _version_base() -> dict[str, Any]:
    """Hydra 1.3 takes the defaults of 1.1 unless it is told; 1.4 has one set of defaults, and warns of the word."""
    import hydra.errors  # deferred, as above

    return {} if hasattr(hydra.errors, "Hydra15MigrationWarning") else {"version_base": "1.3"}


def _checked(arguments: list[str], config_directory: Path) -> list[str]:
    """The same arguments, options before overrides, with the directory of --config-path absolute.

    Raises:
        ConfigurationError: There is no such option, or no config where the options point: Hydra would then look for
            it in the rest of its search path, and find the one of hpc's own example.
    """
    from hydra._internal.utils import get_args_parser  # deferred, as above

    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    given = parser.parse_intermixed_args(arguments)
    options = list(arguments)
    for override in given.overrides:
        options.remove(override)
        if override.lstrip("+~").startswith("="):
            raise ConfigurationError(f"{override!r} cannot be read as an override: a name must stand before the =.")
    path = str(given.config_path or config_directory)
    if path.startswith("pkg://"):
        return [*options, *given.overrides]
    directory, name = Path(path).expanduser().absolute(), (given.config_name or "config").removesuffix(".yaml")
    with readable():
        is_there = (directory / f"{name}.yaml").is_file()
    if not is_there:
        raise ConfigurationError(f"--config-path must be a directory with {name}.yaml in it, but {directory} has none.")
    return [*options, f"--config-path={directory}", *given.overrides]


def _refuse(message: str) -> NoReturn:
    text = " ".join(message.split()).rstrip(".")
    raise ConfigurationError(f"The command line must be options and overrides like seed=1: {text}.")


def _is_about_configs(error: BaseException) -> bool:
    """Whether the innermost of Hydra and us that had a hand in it is Hydra, or what it reads with."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    known = [name for name in modules if name.partition(".")[0] in (*READERS, "hpc", "hydra_plugins")]
    return bool(known) and known[-1].partition(".")[0] in READERS


def _train(config: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig  # deferred, as above

    from hpc.submit.freeze import freeze_point, run_directory  # deferred, with the task: a sweep does not come this way
    from hpc.task.entry import run_here

    HydraConfig.instance().set_config(config)  # run_dir may ask for it
    point = freeze_point(run_directory(config), ".", config)
    if point.settings.launch.dry_run:
        raise ConfigurationError(
            "launch.dry_run must be false without -m, but is true: add -m to print what would be sent."
        )
    run_here(point)
