"""The context around a training loop: everything a loop needs to run anywhere, and to be stopped anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from hpc.attempt.attempt import Attempt, begin, explain_process
from hpc.attempt.life import current, end, forget, start
from hpc.checkpoint.state import Stateful, TrainingState
from hpc.config import settings_of
from hpc.connect.process_group import open_process_group, told_by_rank_0
from hpc.data.gather import gather, gather_for_metrics
from hpc.data.iterable import PreparedIterable, prepare_loader
from hpc.data.loader import PreparedLoader
from hpc.data.rows import CurrentRows
from hpc.errors import ConfigurationError, HpcError
from hpc.run.journal import Journal
from hpc.runtime.arguments import clipping, directory_name, whole_number
from hpc.runtime.boundary import Boundary
from hpc.runtime.finite import Finite
from hpc.runtime.loops import Epoch, Loop, LoopOptions
from hpc.runtime.micro_batches import Weigh
from hpc.runtime.parts import Parts
from hpc.runtime.positions import MAIN
from hpc.runtime.seeds import seed_everything
from hpc.say import clear_of_bars, say, warn
from hpc.strategy import Context, Strategy, choose
from hpc.strategy.optimizer import PreparedScheduler, WrappedOptimizer
from hpc.strategy.precision import Precision
from hpc.strategy.window import Window
from hpc.tracking.trackers import Tracker, make_trackers
from hpc.tracking.usage import work_of
from hpc.world import World

PREPARED = (WrappedOptimizer, PreparedScheduler, PreparedLoader, PreparedIterable)
"""What `prepare` has returned before, and returns again."""


class Runtime:
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
        self.state = TrainingState(models=[], optimizers=[], others={})
        deterministic = self.settings.runtime.deterministic
        self.strategy = choose(
            Context(self.settings.strategy, self.group, self.precision, self.window, self.state, deterministic)
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
            state=self.state,
            strategy=self.strategy,
            finite=self.finite,
            trackers=self.trackers,
        )
        self._boundary: Boundary | None = None
        self._loaders: dict[str, Any] = {}
        self._has_told = False

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
            self._close(kind)
        except BaseException as late:
            error = late
            raise
        finally:
            if self._joined is None:
                end(self.attempt, error)

    def _close(self, kind: type[BaseException] | None) -> None:
        failed = kind is not None and not issubclass(kind, SystemExit)
        try:
            if kind is None and self._boundary is not None:
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

    @property
    def is_main_process(self) -> bool:
        """Whether this is rank 0: it prints, logs and commits."""
        return self.world.rank == 0

    @property
    def process_index(self) -> int:
        """This process's rank."""
        return self.world.rank

    @property
    def num_processes(self) -> int:
        """The world size."""
        return self.world.world_size

    @property
    def step(self) -> int:
        """The optimizer step that is being taken, from 1 over all lives: the `step` of its row in metrics.jsonl.

        After the last step, that one; before the first, 0.
        """
        return self._boundary.step + self._boundary.in_step if self._boundary is not None else 0

    @property
    def sync_gradients(self) -> bool:
        """Whether this micro-batch ends its accumulation window: gradients are exchanged, and the optimizer steps."""
        return self.window.is_last

    def prepare(self, *objects: Any) -> Any:
        """Make models, optimizers, schedulers and loaders fit this world, in any order; returned in the same one.

        Raises:
            ConfigurationError: An object is of another kind, cannot be prepared, or comes after the first loop.
        """
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
        if self.state.others.setdefault(f"user.{name}", thing) is not thing:
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
        work = work_of(self.state.models, tokens_per_sample, flops_per_sample)
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
        work = work_of(self.state.models, tokens_per_sample, flops_per_sample)
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

    def save(self, *objects: Any) -> int:
        """Save the run. Collective between two steps, where it returns when the checkpoint is durable.

        While a step is being taken, it is saved after a step, as soon as all ranks know of it.

        Args:
            objects: None: what `prepare` and `register` got is what is saved.

        Returns:
            The step of the newest checkpoint.

        Raises:
            ConfigurationError: Objects are given, as Accelerate's `save` takes them.
            SaveError: It could not be made durable; alike on all ranks.
        """
        if objects:
            raise ConfigurationError(
                "runtime.save saves the run and takes nothing, but got a "
                f"{type(objects[0]).__name__}: for a file of your own, write torch.save(...) where "
                "runtime.is_main_process is true."
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

    def accumulate(self, *models: torch.nn.Module, size: int | None = None) -> AbstractContextManager[Any]:
        """Around one micro-batch of a loop of one's own: ranks exchange gradients in the last of each window only.

        In a loop over `steps` or `epochs` it may stand there and does nothing, because the loop sees to it.

        Args:
            models: As Accelerate has it; whichever were prepared are meant.
            size: Micro-batches in the window that begins here, where there are fewer than
                `strategy.accumulation_steps` left. The same on every rank.

        Raises:
            ConfigurationError: An argument is not a model, or a size is given inside `steps` or `epochs`.
        """
        wrong = next((model for model in models if not isinstance(model, torch.nn.Module)), None)
        if wrong is not None:
            raise ConfigurationError(f"runtime.accumulate takes models, or size=..., but got {wrong!r}.")
        if self._boundary is not None and self._boundary.loop is not None:
            if size is not None:
                raise ConfigurationError(
                    "runtime.accumulate takes a size in a loop of one's own only, because runtime.steps knows how "
                    f"many micro-batches a window has, but got size={size}: leave it out."
                )
            return contextlib.nullcontext()
        if self.window.is_last:
            self.precision.close_window()
        self.window.begin(size or self.window.size)
        self.strategy.set_sync(self.window.is_last)
        return _Closing(self.strategy)

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """Gradients of a micro-batch's mean loss; a window's are the mean over its micro-batches, weighed or not.

        Args:
            loss: One element.
            kwargs: Those of `torch.Tensor.backward`.
        """
        if self._boundary is None:
            self._tell_of_plain_loop()
        else:
            self._boundary.in_step = True
        weighed = self.window.weigh(loss)
        self.finite.note("loss", weighed, self.step)
        self.strategy.backward(weighed, **kwargs)

    def clip_grad_norm_(self, *arguments: Any, **named: Any) -> torch.Tensor | None:
        """Clip the true gradients at the end of a window; returns their norm before that, or None inside a window.

        Both `clip_grad_norm_(max_norm)`, over all parameters that prepared optimizers train, and Accelerate's and
        torch's `clip_grad_norm_(parameters, max_norm)`.

        Args:
            arguments: `max_norm`, the largest L2 norm over all parameters together; before it, `parameters`.
            named: The same by name.

        Raises:
            ConfigurationError: They are neither, or ask for another norm than L2.
        """
        parameters, max_norm = clipping(arguments, named)
        if not self.window.is_last:
            return None
        norm = self.strategy.clip_grad_norm_(max_norm, parameters)
        if not self.state.engines:  # an engine tells the norm when it steps
            self.finite.note("grad_norm", norm, self.step)
        return norm

    def autocast(self) -> torch.autocast:
        """The run's precision, for computations outside a prepared model."""
        return self.precision.autocast()

    def gather(self, values: Any) -> Any:
        """Every rank's values, in the order of ranks; see `hpc.data.gather.gather`. Collective.

        Args:
            values: Tensors and arrays, which are joined along dimension 0 (a scalar becomes shape [world size]), or
                anything else, which becomes the list of every rank's; in mappings, sequences and data classes.

        Raises:
            ConfigurationError: The ranks' values do not go together; on every rank.
        """
        self._settle()
        return gather(values, self.group)

    def gather_for_metrics(self, values: Any) -> Any:
        """Every sample's rows, each sample once, in the order of the pass. Collective.

        Inside a pass over a prepared loader, what ranks computed for repeated samples is left out; elsewhere, `gather`.

        Args:
            values: As for `gather`, with rows for each sample of the batch; a list or tuple that holds no tensor has
                an entry for each, and is joined.

        Raises:
            ConfigurationError: A value has no row for each sample, or the ranks' do not go together.
        """
        self._settle()
        return gather_for_metrics(values, self.group, self.current_rows.rows)

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

    def print(self, *words: Any, **kwargs: Any) -> None:
        """Print on rank 0; takes what Python's print takes."""
        if self.is_main_process:
            if kwargs:
                with clear_of_bars():
                    print(*words, **{"flush": True, **kwargs})
            else:
                say(" ".join(map(str, words)))

    def print_in_order(self, *words: Any) -> None:
        """Print every rank's words, rank after rank. Collective."""
        for line in self.group.all_gather(" ".join(map(str, words))):
            self.print(line)

    def unwrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """The user's own module inside a prepared one."""
        return self.strategy.unwrap(model)

    def wait_for_everyone(self) -> None:
        """Return when every rank is here. Collective."""
        self._settle()
        self.group.meet()

    @property
    def journal(self) -> Journal:
        """What happened to this run."""
        return Journal(self.directory, self.attempt.id, self.world.rank)

    def _begin(self, world: World | None, directory: Path) -> Attempt:
        """An attempt of this Runtime's own, where no task has begun one."""
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
        known = [getattr(other, "optimizer", None) for other in self.state.others.values()]
        for optimizer in self.strategy.prepared_optimizers:
            has_scheduler = hasattr(vars(optimizer).get("step"), "_wrapped_by_lr_sched")  # torch 2.6-2.13
            if has_scheduler and not any(each is optimizer for each in known):
                raise ConfigurationError(
                    "A scheduler must be prepared, so that it is saved and advances once per optimizer step, but one "
                    "was built on a prepared optimizer and not: scheduler = runtime.prepare(scheduler)."
                )

    def _tell_of_plain_loop(self) -> None:
        if not self._has_told and self.is_main_process:
            self._has_told = True
            warn(
                "this loop trains outside of runtime.steps and runtime.epochs: nothing of it is saved, and a "
                "preempted job starts it anew; write `for batch in runtime.steps(loader, total=...)`, or call "
                "runtime.resume() before it and runtime.end_step() after each step."
            )

    def _prepare_other(self, thing: Any) -> Any:
        if isinstance(thing, PREPARED):
            return thing
        if isinstance(thing, LRScheduler):
            number = sum(name.startswith("scheduler.") for name in self.state.others)
            self.state.others[f"scheduler.{number}"] = thing
            return PreparedScheduler(thing, self.window)
        if isinstance(thing, DataLoader):
            return prepare_loader(thing, self.group, self.settings.seed, self.current_rows)
        raise ConfigurationError(
            f"prepare takes modules, optimizers, schedulers and DataLoaders, but got a {type(thing).__name__}."
        )


class _Closing:
    """After a micro-batch of the user's own loop, whatever runs next exchanges gradients again."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy

    def __enter__(self) -> None:
        """The strategy knows already."""

    def __exit__(self, *_: object) -> None:
        self.strategy.set_sync(True)
