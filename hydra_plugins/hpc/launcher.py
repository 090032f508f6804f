"""Freezes the points of a sweep and submits them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

SWEEPERS = ("hydra_plugins.hpc.sweeper.HpcSweeper", "hydra._internal.core_plugins.basic_sweeper.BasicSweeper")


class HpcLauncher(Launcher):
    """Submits and returns: training goes on in the scheduler's hands, not in this process."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See Hydra's Launcher; the task function is not used, because a point names its own.

        Raises:
            ConfigurationError: The sweeper waits for values, and submitted points have none yet.
        """
        del task_function
        sweeper = config.hydra.sweeper
        self.in_batches = sweeper._target_ not in SWEEPERS or bool(sweeper.get("max_batch_size"))
        self.waits = bool(OmegaConf.select(config, "launch.wait", default=False))
        if self.in_batches and not self.waits:
            from hpc.errors import ConfigurationError  # deferred: Hydra imports this module in every app

            raise ConfigurationError(
                "hydra/sweeper must be hpc, or basic without max_batch_size, because submitted points have no values "
                f"to steer by, but is {sweeper._target_}: wait for their values with launch.wait=true."
            )
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Freeze every point, then submit them all.

        Of a sweeper that comes several times, each batch is a sweep of its own, below run_dir: `batch-0`, `batch-4`.

        Returns:
            What became of them with launch.wait, else nothing: there are no results yet.

        Raises:
            ConfigurationError: A point is not valid, or cannot be submitted; nothing was.
            SystemExit: Points were stopped, or have failed and nobody asks for their values.
        """
        from hpc.say import answering, say  # deferred: Hydra imports this module in every app
        from hpc.submit.compose import Composer  # deferred, as above
        from hpc.submit.freeze import freeze, run_directory  # deferred, as above

        _check_one_directory(job_overrides)
        directory = run_directory(self.config)
        if self.in_batches:
            directory /= f"batch-{initial_job_idx}"
        composer = Composer(self.hydra_context.config_loader, self.config, directory)
        prints = bool(OmegaConf.select(self.config, "launch.dry_run", default=False))
        with answering() if prints else nullcontext():
            sweep = freeze(directory, composer, job_overrides)
        if self.config.hydra.verbose:
            say(f"Points composed: {', '.join(f'{count} {way}' for way, count in composer.ways.items())}.")
        from hydra_plugins.hpc.again import submit_or_continue  # deferred, as above

        if not self.waits:
            submit_or_continue(sweep)
            return []
        from hydra_plugins.hpc.waiting import returns, submit_and_wait  # deferred, as above

        return returns(*submit_and_wait(sweep, must_finish=not self.in_batches))


def _check_one_directory(job_overrides: Sequence[Sequence[str]]) -> None:
    typed = {each.partition("=")[2] for overrides in job_overrides for each in overrides if _is_run_dir(each)}
    if len(typed) > 1:
        from hpc.errors import ConfigurationError  # deferred, as above

        raise ConfigurationError(
            f"run_dir must be one directory for the whole sweep, each point has one of its own below it, "
            f"but is {' and '.join(sorted(typed))}."
        )


def _is_run_dir(override: str) -> Any:
    return override.partition("=")[0].lstrip("+") == "run_dir"


ConfigStore.instance().store(
    group="hydra/launcher", name="hpc", node={"_target_": "hydra_plugins.hpc.launcher.HpcLauncher"}, provider="hpc"
)
