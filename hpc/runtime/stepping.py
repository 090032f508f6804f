"""How does a training loop run? Over steps or epochs, or a loop of one's own with `end_step` after each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hpc.checkpoint.state import TrainingState
from hpc.data.iterable import PreparedIterable
from hpc.data.loader import PreparedLoader
from hpc.errors import ConfigurationError
from hpc.runtime.arguments import whole_number
from hpc.runtime.boundary import Boundary
from hpc.runtime.epoch import Epoch
from hpc.runtime.loops import Loop, LoopOptions
from hpc.runtime.micro_batches import Weigh
from hpc.runtime.parts import Parts
from hpc.runtime.positions import MAIN
from hpc.say import phase
from hpc.stop.activity import activity
from hpc.strategy import Strategy
from hpc.strategy.optimizer import check_schedulers
from hpc.tracking.usage import work_of


class Stepping:
    """The part of a Runtime that hands out micro-batches and ends steps."""

    step: int
    strategy: Strategy
    training_state: TrainingState
    _parts: Parts
    _loaders: dict[str, Any]
    _boundary: Boundary | None

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
        boundary.ask_save()
        return boundary.checkpoints.saved_step

    def stop(self, reason: str = "runtime.stop was called") -> None:
        """End this loop after the step at hand: all ranks save and leave it, and the run goes on behind it.

        Where all ranks call it in one step, as after looking at a gathered value, they leave at that very step; where
        only some do, at the one at which all know.

        Args:
            reason: Said, and kept in the journal.
        """
        self._opened().ask_end(str(reason) or "runtime.stop was called")

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
        noted = {**values, **named} if values else named
        if "step" in noted or (step is not None and step != self.step):
            raise ConfigurationError(
                f"runtime.log notes values of step {self.step}, which is the `step` of their row, but got step="
                f"{noted.get('step', step)}: leave it out, or give the value another name."
            )
        self._boundary.log(noted)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The block may take as long as it likes on this rank: no watchdog ends the run while a rank is in it.

        For what takes longer than steps do and makes none, such as tokenising a data set. It is said after two
        seconds, and `hpc status` and reports of failures show it.

        Args:
            name: What is done, for people: `with runtime.phase("tokenising"):`.
        """
        with phase(name), activity().during(f"{name} (runtime.phase)"):
            yield

    def _opened(self) -> Boundary:
        """The boundary between steps; the run is resumed when it is first asked for."""
        if self._boundary is None:
            check_schedulers(self.strategy.prepared_optimizers, self.training_state.others.values())
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
