"""The context around a training loop: everything a loop needs to run anywhere, and to be stopped anywhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import distributed
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from hpc.checkpoint.state import Stateful, TrainingState
from hpc.config import settings_of
from hpc.connect.process_group import open_process_group
from hpc.data.iterable import PreparedIterable, prepare_loader
from hpc.data.loader import PreparedLoader
from hpc.data.nest import map_tensors
from hpc.data.rows import CurrentRows
from hpc.errors import ConfigurationError
from hpc.run.journal import Journal
from hpc.runtime.micro_batch_weights import Weigh
from hpc.runtime.seeds import seed_everything
from hpc.runtime.steps import Steps
from hpc.stop.requests import stop_requests
from hpc.strategy import Context, choose
from hpc.strategy.optimizer import PreparedScheduler
from hpc.strategy.precision import Precision
from hpc.strategy.window import Window
from hpc.tracking.trackers import Tracker, make_trackers
from hpc.tracking.usage import work_of
from hpc.world import World, resolve_world


class Runtime:
    """One training run on this rank. Names follow Accelerate where it has one.

    Args:
        config: A composed config or a plain mapping; see `hpc.config.Settings` for the parts that are read.
        world: Which rank this is; asked of the launcher's environment variables when not given.
        trackers: Your own, besides those of `runtime.trackers`.

    Raises:
        ConfigurationError: A setting is wrong, or the world is not what the hardware says.
    """

    def __init__(self, config: Any, world: World | None = None, trackers: Sequence[Tracker] = ()) -> None:
        self.config = config
        self.settings = settings_of(config)
        self.requests = stop_requests()
        self.world = world or resolve_world(os.environ, self.settings.runtime.launcher)
        self.directory = Path(self.settings.run_dir).absolute()
        self.trackers = [*make_trackers(self.settings.runtime.trackers), *trackers]
        self.group = open_process_group(self.world, self.settings.runtime, self.settings.hardware.gpus_per_node)
        self.device = self.group.device
        self.precision = Precision(self.settings.strategy.precision, self.device)
        self.window = Window(self.settings.strategy.accumulation_steps)
        self.current_rows = CurrentRows()
        self.state = TrainingState(models=[], optimizers=[], others={})
        deterministic = self.settings.runtime.deterministic
        self.strategy = choose(
            Context(self.settings.strategy, self.group, self.precision, self.window, self.state, deterministic)
        )
        self._steps: Steps | None = None

    def __enter__(self) -> Runtime:
        if self.is_main_process:
            self.directory.mkdir(parents=True, exist_ok=True)
        if self.settings.runtime.deterministic:
            torch.use_deterministic_algorithms(True, warn_only=True)
        seed_everything(self.settings.seed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = kind is not None and not issubclass(kind, SystemExit)
        if self._steps is not None:
            self._steps.close(failed)
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
        """Optimizer steps taken, over all lives of this run."""
        return self._steps.step if self._steps is not None else 0

    def prepare(self, *objects: Any) -> Any:
        """Make models, optimizers, schedulers and loaders fit this world, in any order; returned in the same one.

        Raises:
            ConfigurationError: An object is none of these, or cannot be prepared.
        """
        models = [thing for thing in objects if isinstance(thing, torch.nn.Module)]
        optimizers = [thing for thing in objects if isinstance(thing, Optimizer)]
        ready = self.strategy.prepare(models, optimizers)
        prepared = tuple(ready[id(thing)] if id(thing) in ready else self._prepare_other(thing) for thing in objects)
        return prepared if len(prepared) > 1 else prepared[0]

    def register(self, name: str, thing: Stateful) -> None:
        """Save and restore `thing`'s state dict with every checkpoint."""
        self.state.others[f"user.{name}"] = thing

    def steps(
        self,
        loader: PreparedLoader | PreparedIterable,
        *,
        total: int,
        tokens_per_sample: int | None = None,
        flops_per_sample: float | None = None,
        weigh: Weigh | None = None,
    ) -> Iterator[Any]:
        """This rank's micro-batches until `total` optimizer steps are done, over all lives.

        Between two of them lies the step boundary: it saves when due, and stops the run when the ranks have agreed to.

        Args:
            loader: From `prepare`.
            total: Optimizer steps in all; a resumed run has fewer left.
            tokens_per_sample: Counts speed in tokens; without it, in samples.
            flops_per_sample: Of forward and backward pass, for the share of the GPUs' peak that is shown; with tokens
                it is estimated where not given.
            weigh: Batch -> tokens its mean loss is over; a window's gradient is then that of one mean over all
                tokens on all ranks. Without it, every micro-batch counts the same.

        Raises:
            SystemExit: With 75, after a committed save, when the scheduler wants the nodes back.
            DivergedError: A logged value is not finite; nothing was saved from there on.
            LoadError: Checkpoints were committed and none of them can be trusted.
            SaveError: A checkpoint could not be made durable.
        """
        if not isinstance(loader, (PreparedLoader, PreparedIterable)):
            raise ConfigurationError(f"steps takes a loader that prepare returned, but got a {type(loader).__name__}.")
        self.strategy.check_batch_size(loader.share.batch_size)
        work = work_of(self.state.models, tokens_per_sample, flops_per_sample)
        self._steps = Steps(self, loader, total, work, weigh)
        return iter(self._steps)

    def accumulate(self, size: int | None = None) -> AbstractContextManager[Any]:
        """Around one micro-batch: ranks exchange gradients in the last of each window only.

        Args:
            size: Micro-batches in the window that begins here, where there are fewer than
                `strategy.accumulation_steps` left; `steps` never runs out of them. The same on every rank.
        """
        window = self.window
        if window.is_last:
            self.precision.close_window()
            window.micro, window.length = 0, size or window.size
        window.micro += 1
        return contextlib.nullcontext() if window.is_last else self.strategy.without_sync()

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients of a micro-batch's mean loss; a window's are the mean over its micro-batches, weighed or not."""
        self.strategy.backward(self.window.weigh(loss))

    def clip_grad_norm_(self, max_norm: float, parameters: Any = None) -> torch.Tensor | None:
        """Clip the true gradients at the end of a window; returns their norm before that, or None inside a window.

        Args:
            max_norm: Largest L2 norm over all parameters together.
            parameters: Those to clip; all that prepared optimizers train when not given.
        """
        if not self.window.is_last:
            return None
        return self.strategy.clip_grad_norm_(max_norm, parameters)

    def autocast(self) -> torch.autocast:
        """The run's precision, for computations outside a prepared model."""
        return self.precision.autocast()

    def gather(self, values: Any) -> Any:
        """Every rank's tensors, joined along the first dimension; a scalar becomes shape [world size]. Collective.

        Args:
            values: A tensor, or mappings and sequences of tensors; of one shape on all ranks.
        """
        return map_tensors(self._gather_one, values)

    def gather_for_metrics(self, values: Any) -> Any:
        """Every sample's rows, each sample once, in the order of the data set. Collective.

        Inside a pass over a prepared loader, what ranks computed for repeated samples is left out; elsewhere, `gather`.

        Args:
            values: A tensor, or mappings and sequences of tensors, with rows for each sample of the batch.

        Raises:
            ConfigurationError: A tensor has no row for each sample.
        """
        rows = self.current_rows.rows
        if rows is None:
            return self.gather(values)
        return map_tensors(lambda value: rows.gather(value, self._gather_one), values)

    def log(self, **values: Any) -> None:
        """Note values of the current step: numbers, or tensors of one element. Rank 0's are kept."""
        if self._steps is None:
            raise ConfigurationError(
                "runtime.log needs a step to belong to: call it inside the loop over runtime.steps."
            )
        self._steps.log(values)

    def print(self, *words: Any) -> None:
        """Print on rank 0."""
        if self.is_main_process:
            print(*words, flush=True)

    def print_in_order(self, *words: Any) -> None:
        """Print every rank's words, rank after rank. Collective."""
        for line in self.group.collect(" ".join(map(str, words))):
            self.print(line)

    def unwrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """The user's own module inside a prepared one."""
        return self.strategy.unwrap(model)

    def wait_for_everyone(self) -> None:
        """Return when every rank is here. Collective."""
        self.group.meet()

    @property
    def journal(self) -> Journal:
        """What happened to this run."""
        return Journal(self.directory, f"{self.world.job}-{self.world.attempt}", self.world.rank)

    def _prepare_other(self, thing: Any) -> Any:
        if isinstance(thing, LRScheduler):
            self.state.others[f"scheduler.{len(self.state.others)}"] = thing
            return PreparedScheduler(thing, self.window)
        if isinstance(thing, DataLoader):
            return prepare_loader(thing, self.group, self.settings.seed, self.current_rows)
        raise ConfigurationError(
            f"prepare takes modules, optimizers, schedulers and DataLoaders, but got a {type(thing).__name__}."
        )

    def _gather_one(self, value: torch.Tensor) -> torch.Tensor:
        value = value.detach().reshape(1) if value.dim() == 0 else value.detach()
        if self.world.world_size == 1:
            return value
        parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(self.world.world_size)]
        distributed.all_gather(parts, value.contiguous())
        return torch.cat(parts)
