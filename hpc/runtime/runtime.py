"""The context around a training loop: everything a loop needs to run anywhere, and to be stopped anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from hpc.attempt.attempt import Attempt, begin, explain_process, process_secret
from hpc.attempt.life import current, end, forget, start
from hpc.attempt.uncaught import answer_uncaught_errors
from hpc.checkpoint.state import Stateful, TrainingState
from hpc.config import read_config, settings_of
from hpc.connect.process_group import open_process_group, told_by_rank_0
from hpc.data.iterable import prepare_loader
from hpc.data.rows import CurrentRows
from hpc.environ import process_environ
from hpc.errors import ConfigurationError, HpcError
from hpc.run.journal import Journal
from hpc.run.ownership import check_ownership
from hpc.runtime.accelerate import no_attribute
from hpc.runtime.arguments import check_stateful, directory_name
from hpc.runtime.finite import Finite
from hpc.runtime.gradients import Gradients
from hpc.runtime.parts import Parts
from hpc.runtime.processes import Processes
from hpc.runtime.seeds import seed_everything
from hpc.runtime.stepping import Stepping
from hpc.runtime.weights import Weights
from hpc.strategy import Context, choose
from hpc.strategy.optimizer import PreparedScheduler
from hpc.strategy.precision import Precision
from hpc.strategy.window import Window
from hpc.tracking.trackers import Tracker, make_trackers
from hpc.world import World


class Runtime(Stepping, Processes, Gradients, Weights):
    """One training run on this rank. Names follow Accelerate where it has one.

    Args:
        config: A composed config, a mapping, a dataclass or argparse's namespace; see `hpc.config.Settings` for the
            parts that are read.
        world: Which rank this is; asked of the launcher's environment variables when not given.
        trackers: Your own, besides those of `runtime.trackers`.
        name: Of a fold or phase that has its own model: it gets a directory of its own below run_dir.

    Raises:
        ConfigurationError: A setting is wrong, or the world is not what the hardware says.
    """

    def __init__(
        self, config: Any, world: World | None = None, trackers: Sequence[Tracker] = (), name: str = ""
    ) -> None:
        answer_uncaught_errors()
        self.config = config
        given = read_config(config)
        self.settings = settings_of(given)
        run_directory = Path(self.settings.run_dir).absolute()
        self.directory = run_directory / directory_name(name)
        self._joined = current()
        self.attempt = self._joined or self._begin(world, run_directory)
        self.world, self.requests = world or self.attempt.world, self.attempt.requests
        self.trackers = [*make_trackers(self.settings.runtime.trackers), *trackers]
        gpus = self.settings.hardware.gpus_per_node
        self.group = open_process_group(
            self.world, self.attempt.secret, self.settings.runtime, self.attempt.environ, gpus
        )
        self.device = self.group.device
        self.precision = Precision(self.settings.strategy.precision, self.device)
        self.window = Window(self.settings.strategy.accumulation_steps)
        self.current_rows = CurrentRows()
        self.training_state = TrainingState(models=[], optimizers=[], others={})
        deterministic = self.settings.runtime.deterministic
        self.strategy = choose(
            Context(self.settings.strategy, self.group, self.precision, self.window, self.training_state, deterministic)
        )
        self.finite = Finite(self.device)
        self._parts = Parts(
            config=given,
            settings=self.settings,
            directory=self.directory,
            journal=self.journal,
            group=self.group,
            requests=self.requests,
            precision=self.precision,
            window=self.window,
            state=self.training_state,
            strategy=self.strategy,
            finite=self.finite,
            trackers=self.trackers,
        )
        self._loaders: dict[str, Any] = {}
        self._prepared: dict[int, tuple[Any, Any]] = {}

    def __enter__(self) -> Runtime:
        if self.is_main_process:
            self.directory.mkdir(parents=True, exist_ok=True)
        if self._joined is None:
            self._start()
        if self.settings.runtime.deterministic:
            torch.use_deterministic_algorithms(True, warn_only=True)
        seed_everything(self.settings.seed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close(error)
        except BaseException as late:
            error = late
            raise
        finally:
            if self._joined is None:
                end(self.attempt, error)

    def _close(self, error: BaseException | None) -> None:
        """Save where the user has left, also with sys.exit(); after a failure, there is nothing that can be trusted."""
        failed = error is not None and not isinstance(error, SystemExit)
        try:
            if not failed and not getattr(error, "code", None) and self._boundary is not None:
                self._boundary.settle()
                self._boundary.save()
        except BaseException:
            failed = True
            raise
        finally:
            if self._boundary is not None:
                self._boundary.close(failed)
        if not failed:
            self.group.meet()  # nobody leaves while another rank still needs it

    def prepare(self, *objects: Any, device_placement: None = None) -> Any:
        """Make models, optimizers, schedulers and loaders fit this world, in any order; returned in the same one.

        What has been prepared before is returned again.

        Args:
            objects: At least one.
            device_placement: As Accelerate has it; everything is placed on `runtime.device`.

        Raises:
            ConfigurationError: An object is of another kind, cannot be prepared, or comes after the first loop.
        """
        if device_placement is not None or not objects:
            raise ConfigurationError(
                "prepare takes objects alone, at least one, and places them on runtime.device, but got "
                f"{f'device_placement={device_placement!r}' if objects else 'nothing'}: write prepare(model, ...)."
            )
        new = {id(thing): thing for thing in objects if id(thing) not in self._prepared}.values()
        for thing in new:
            self._check_in_time(thing)
        models = [thing for thing in new if isinstance(thing, torch.nn.Module)]
        optimizers = [thing for thing in new if isinstance(thing, Optimizer)]
        ready = {key: made for key, (_, made) in self._prepared.items()}
        ready |= self.strategy.prepare(models, optimizers)
        for thing in new:
            if id(thing) not in ready:
                ready[id(thing)] = self._prepare_other(thing)
            if not isinstance(thing, DataLoader):  # which may be many, one after the other
                made = ready[id(thing)]
                self._prepared |= {id(thing): (thing, made), id(made): (made, made)}
        prepared = tuple(ready[id(thing)] for thing in objects)
        return prepared if len(prepared) > 1 else prepared[0]

    def register(self, name: str, thing: Stateful) -> None:
        """Save and restore `thing`'s state dict with every checkpoint.

        Raises:
            ConfigurationError: It has no state dict, there is one of that name already, or training has begun.
        """
        self._check_in_time(thing)
        check_stateful(name, thing)
        if self.training_state.others.setdefault(f"user.{name}", thing) is not thing:
            raise ConfigurationError(
                f"runtime.register takes one object for each name, but {name} is given twice: rename one."
            )

    def end_training(self) -> None:
        """As Accelerate has it; the end of the Runtime's `with` block closes trackers and connections. Collective."""
        self.wait_for_everyone()

    if not TYPE_CHECKING:  # a type checker knows by itself what is not there

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(name)

    @property
    def journal(self) -> Journal:
        """What happened to this run."""
        return Journal(self.directory, self.attempt.id, self.world.rank)

    def _begin(self, world: World | None, directory: Path) -> Attempt:
        """An attempt of this Runtime's own, where no task has begun one."""
        check_ownership(directory, self.settings.cluster.run_dir_writers)
        known, options = world or explain_process(self.settings.runtime.launcher).world, self.settings.runtime
        secret = process_secret(known)
        agree = partial(told_by_rank_0, known, secret, options)
        return begin(known, secret, directory, agree, process_environ())

    def _start(self) -> None:
        """The life of an attempt of this Runtime's own; what keeps one rank from it keeps all. Collective."""
        problem: HpcError | None = None
        try:
            start(self.attempt, self.settings)
        except HpcError as error:
            problem = error
        first = next((each for each in self.group.all_gather(problem) if each is not None), None)
        if first is not None:
            end(self.attempt, problem) if problem else forget(self.attempt)
            raise first

    def _check_in_time(self, thing: Any) -> None:
        """What is prepared after a loop has begun would be missing where a resumed run loads its checkpoint."""
        if self._boundary is not None and not isinstance(thing, DataLoader):
            raise ConfigurationError(
                f"What is trained must be prepared before the first loop, because a resumed run loads it there, but a "
                f"{type(thing).__name__} comes after it: prepare it earlier, or give each phase or fold a "
                "Runtime(cfg, name=...) of its own."
            )

    def _prepare_other(self, thing: Any) -> Any:
        if isinstance(thing, LRScheduler):
            number = sum(name.startswith("scheduler.") for name in self.training_state.others)
            self.training_state.others[f"scheduler.{number}"] = thing
            return PreparedScheduler(thing, self.window)
        if isinstance(thing, DataLoader):
            return prepare_loader(thing, self.group, self.settings.seed, self.current_rows)
        raise ConfigurationError(
            f"prepare takes modules, optimizers, schedulers and DataLoaders, but got a {type(thing).__name__}."
        )
