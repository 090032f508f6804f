"""The context around a training loop: everything a loop needs to run anywhere, and to be stopped anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from hpc.attempt.attempt import Attempt, begin, explain_process
from hpc.attempt.life import current, end, forget, start
from hpc.attempt.uncaught import answer_uncaught_errors
from hpc.checkpoint.state import Stateful, TrainingState
from hpc.config import settings_of
from hpc.connect.process_group import open_process_group, told_by_rank_0
from hpc.data.iterable import PreparedIterable, prepare_loader
from hpc.data.loader import PreparedLoader
from hpc.data.rows import CurrentRows
from hpc.errors import ConfigurationError, HpcError
from hpc.run.journal import Journal
from hpc.run.ownership import check_ownership
from hpc.runtime.accelerate import no_attribute
from hpc.runtime.arguments import directory_name, whole_number
from hpc.runtime.boundary import Boundary
from hpc.runtime.finite import Finite
from hpc.runtime.gradients import Gradients
from hpc.runtime.loops import Epoch, Loop, LoopOptions
from hpc.runtime.micro_batches import Weigh
from hpc.runtime.parts import Parts
from hpc.runtime.positions import MAIN
from hpc.runtime.processes import Processes
from hpc.runtime.seeds import seed_everything
from hpc.runtime.weights import Weights
from hpc.strategy import Context, choose
from hpc.strategy.optimizer import PreparedScheduler, WrappedOptimizer
from hpc.strategy.precision import Precision
from hpc.strategy.window import Window
from hpc.tracking.trackers import Tracker, make_trackers
from hpc.tracking.usage import work_of
from hpc.world import World

PREPARED = (WrappedOptimizer, PreparedScheduler, PreparedLoader, PreparedIterable)
"""What `prepare` has returned before, and returns again."""


class Runtime(Processes, Gradients, Weights):
    """One training run on this rank. Names follow Accelerate where it has one.

    Args:
        config: A composed config or a plain mapping; see `hpc.config.Settings` for the parts that are read.
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
        self.settings = settings_of(config)
        run_directory = Path(self.settings.run_dir).absolute()
        self.directory = run_directory / directory_name(name)
        self._joined = current()
        self.attempt = self._joined or self._begin(world, run_directory)
        self.world, self.requests = world or self.attempt.world, self.attempt.requests
        self.trackers = [*make_trackers(self.settings.runtime.trackers), *trackers]
        gpus = self.settings.hardware.gpus_per_node
        self.group = open_process_group(self.world, self.settings.runtime, self.attempt.environ, gpus)
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
            config=config,
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
        models = [thing for thing in objects if isinstance(thing, torch.nn.Module)]
        optimizers = [thing for thing in objects if isinstance(thing, Optimizer) and not isinstance(thing, PREPARED)]
        for thing in objects:
            self._check_in_time(thing)
        ready = self.strategy.prepare(models, optimizers)
        prepared = tuple(ready[id(thing)] if id(thing) in ready else self._prepare_other(thing) for thing in objects)
        return prepared if len(prepared) > 1 else prepared[0]

    def register(self, name: str, thing: Stateful) -> None:
        """Save and restore `thing`'s state dict with every checkpoint.

        Raises:
            ConfigurationError: There is one of that name already, or training has begun.
        """
        self._check_in_time(thing)
        if self.training_state.others.setdefault(f"user.{name}", thing) is not thing:
            raise ConfigurationError(
                f"runtime.register takes one object for each name, but {name} is given twice: rename one."
            )

    def steps(
        self,
        loader: PreparedLoader | PreparedIterable,
        *,
        total: int,
        name: str = MAIN,
        tokens_per_sample: int | None = None,
        flops_per_sample: float | None = None,
        weigh: Weigh | None = None,
    ) -> Iterator[Any]:
        """This rank's micro-batches until `total` optimizer steps are done, over all lives.

        Between two steps lies the step boundary: it saves when due, and stops the run when the ranks have agreed to.
        A micro-batch that is left out with `continue` does not count where steps are accumulated; without
        accumulation it is a step in which nothing is learnt.

        Args:
            loader: From `prepare`.
            total: Optimizer steps in all; a resumed run has fewer left.
            name: Of the loop, where a run has several: each has a position of its own.
            tokens_per_sample: Counts speed in tokens; without it, in samples.
            flops_per_sample: Of forward and backward pass, for the share of the GPUs' peak that is shown; with tokens
                it is estimated where not given.
            weigh: Batch -> tokens its mean loss is over; a window's gradient is then that of one mean over all
                tokens on all ranks. Without it, every micro-batch counts the same.

        Raises:
            SystemExit: With 75, after a committed save, when the scheduler wants the nodes back.
            ConfigurationError: The loader was not prepared, the total is no whole number, or the name is taken.
            DivergedError: A loss, a norm or a logged value is not finite; nothing was saved from there on.
            LoadError: Checkpoints were committed and none of them can be trusted.
            SaveError: A checkpoint could not be made durable.
        """
        work = work_of(self.training_state.models, tokens_per_sample, flops_per_sample)
        options = LoopOptions(name, whole_number(total, "steps"), work, weigh)
        return self._run(lambda boundary: Loop(self._parts, boundary, loader, options).steps(), loader, name, "steps")

    def epochs(
        self,
        loader: PreparedLoader,
        *,
        total: int,
        name: str = MAIN,
        tokens_per_sample: int | None = None,
        flops_per_sample: float | None = None,
        weigh: Weigh | None = None,
    ) -> Iterator[Epoch]:
        """Epochs until `total` of them are done, over all lives: numbers from 0, and micro-batches when iterated.

        Each epoch sees every sample once, shuffled anew where the loader shuffles, and ends with a step, which takes
        fewer micro-batches where the data set is no multiple of the global batch. A resumed run goes on in the middle
        of an epoch; one that was stopped after its last step comes back to it, with no micro-batch left.

        Args:
            loader: From `prepare`, over a map-style data set.
            total: Epochs in all.
            name: See `steps`, as for all that follow.
            tokens_per_sample: See `steps`.
            flops_per_sample: See `steps`.
            weigh: See `steps`.

        Raises:
            ConfigurationError: The loader was not prepared or has no length, or the total is not a whole number.
        """
        total = whole_number(total, "epochs")
        if isinstance(loader, PreparedIterable):
            raise ConfigurationError(
                "runtime.epochs must have a loader over a map-style data set, which has a length, but this one's is "
                "iterable-style: use runtime.steps, which reads it again whenever it ends."
            )
        work = work_of(self.training_state.models, tokens_per_sample, flops_per_sample)
        options = LoopOptions(name, total, work, weigh)
        return self._run(
            lambda boundary: Loop(self._parts, boundary, loader, options).epochs(loader), loader, name, "epochs"
        )

    def resume(self) -> int:
        """Load the newest good checkpoint, for a loop of one's own; `steps` and `epochs` do it themselves. Collective.

        Returns:
            Optimizer steps taken in earlier lives.

        Raises:
            LoadError: Checkpoints were committed and none of them can be trusted.
            SaveError: The run directory cannot be written.
        """
        return self._opened().step

    def end_step(self) -> bool:
        """In a loop of one's own: a step was taken. Saves when due, and stops the run when the ranks have agreed to.

        Returns:
            Whether to go on: False once all ranks have agreed to what `stop` asked for.

        Raises:
            SystemExit: With 75, after a committed save, when the scheduler wants the nodes back.
            ConfigurationError: `steps` or `epochs` ends its steps by itself.
            DivergedError: A loss, a norm or a logged value is not finite.
            SaveError: A checkpoint could not be made durable.
        """
        boundary = self._opened()
        boundary.settle()
        if boundary.loop is not None:
            raise ConfigurationError(
                "runtime.end_step is for a loop of one's own, but this one is over runtime.steps or runtime.epochs, "
                "which end each step by themselves: leave it out."
            )
        boundary.end_step()
        return not boundary.has_ended or not boundary.end_early()

    def save(self, *objects: Any, **named: Any) -> int:
        """Save the run. Collective between two steps, where it returns when the checkpoint is durable.

        While a step is being taken, it is saved after a step, as soon as all ranks know of it.

        Args:
            objects: None: what `prepare` and `register` got is what is saved.
            named: None.

        Returns:
            The step of the newest checkpoint.

        Raises:
            ConfigurationError: Objects are given, as Accelerate's `save` takes them.
            SaveError: It could not be made durable; alike on all ranks.
        """
        if objects or named:
            first = f"a {type(objects[0]).__name__}" if objects else ", ".join(named)
            raise ConfigurationError(
                f"runtime.save saves the run and takes nothing, but got {first}: for a file of your own, write "
                "torch.save(...) where runtime.is_main_process is true."
            )
        boundary = self._opened()
        boundary.settle()
        if not boundary.in_step:
            return boundary.save()
        boundary.agreement.wants_save = True
        return boundary.checkpoints.saved_step

    def stop(self, reason: str = "runtime.stop was called") -> None:
        """End this loop after the step at hand: all ranks save and leave it, and the run goes on behind it.

        Where all ranks call it in one step, as after looking at a gathered value, they leave at that very step; where
        only some do, at the one at which all know.

        Args:
            reason: Said, and kept in the journal.
        """
        self._opened().early_reason = str(reason) or "runtime.stop was called"

    def log(self, values: Mapping[str, Any] | None = None, step: int | None = None, **named: Any) -> None:
        """Note values of the step that is being taken; between two steps and after the last, of the one before.

        Args:
            values: Name -> number, or tensor of one element. Rank 0's are kept.
            step: As Accelerate has it; must be the run's own, `runtime.step`.
            named: The same, as arguments.

        Raises:
            ConfigurationError: There is no step yet, a value is no number, or one is called `step`.
        """
        if self._boundary is None:
            raise ConfigurationError(
                "runtime.log needs a step to belong to: call it inside the loop over runtime.steps, or after it."
            )
        noted = {**(values or {}), **named}
        if "step" in noted or step not in (None, self.step):
            raise ConfigurationError(
                f"runtime.log notes values of step {self.step}, which is the `step` of their row, but got step="
                f"{noted.get('step', step)}: leave it out, or give the value another name."
            )
        self._boundary.log(noted)

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
        return begin(known, directory, lambda key, proposal: told_by_rank_0(known, options, key, proposal))

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

    def _opened(self) -> Boundary:
        """The boundary between steps; the run is resumed when it is first asked for."""
        if self._boundary is None:
            self._check_schedulers()
            self._boundary = Boundary(self._parts)
            self._boundary.resume()
        return self._boundary

    def _run(self, make: Callable[[Boundary], Iterator[Any]], loader: Any, name: str, what: str) -> Iterator[Any]:
        """A loop that resumes when its first batch is asked for; wrong arguments are refused before."""
        if not isinstance(loader, (PreparedLoader, PreparedIterable)):
            raise ConfigurationError(f"{what} takes a loader that prepare returned, but got a {type(loader).__name__}.")
        loader.check()
        self.strategy.check_batch_size(loader.share.batch_size)
        if self._loaders.setdefault(name, loader) is not loader:
            raise ConfigurationError(
                f"Each loop of a run must have a name of its own, but two loaders are called {name}: add name=... to "
                "the second loop."
            )

        def batches() -> Iterator[Any]:
            yield from make(self._opened())

        return batches()

    def _settle(self) -> None:
        if self._boundary is not None:
            self._boundary.settle()

    def _check_in_time(self, thing: Any) -> None:
        """What is prepared after a loop has begun would be missing where a resumed run loads its checkpoint."""
        if self._boundary is not None and not isinstance(thing, DataLoader):
            raise ConfigurationError(
                f"What is trained must be prepared before the first loop, because a resumed run loads it there, but a "
                f"{type(thing).__name__} comes after it: prepare it earlier, or give each phase or fold a "
                "Runtime(cfg, name=...) of its own."
            )

    def _check_schedulers(self) -> None:
        """A scheduler that was built on a prepared optimizer and not handed over would start anew in the next life."""
        known = [getattr(other, "optimizer", None) for other in self.training_state.others.values()]
        for optimizer in self.strategy.prepared_optimizers:
            has_scheduler = hasattr(vars(optimizer).get("step"), "_wrapped_by_lr_sched")  # torch 2.6-2.13
            if has_scheduler and not any(each is optimizer for each in known):
                raise ConfigurationError(
                    "A scheduler must be prepared, so that it is saved and advances once per optimizer step, but one "
                    "was built on a prepared optimizer and not: scheduler = runtime.prepare(scheduler)."
                )

    def _prepare_other(self, thing: Any) -> Any:
        if isinstance(thing, PREPARED):
            return thing
        if isinstance(thing, LRScheduler):
            number = sum(name.startswith("scheduler.") for name in self.training_state.others)
            self.training_state.others[f"scheduler.{number}"] = thing
            return PreparedScheduler(thing, self.window)
        if isinstance(thing, DataLoader):
            return prepare_loader(thing, self.group, self.settings.seed, self.current_rows)
        raise ConfigurationError(
            f"prepare takes modules, optimizers, schedulers and DataLoaders, but got a {type(thing).__name__}."
        )
