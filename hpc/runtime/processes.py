"""Who is this process among the ranks, and what do ranks tell each other? Names and meanings are Accelerate's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hpc.connect.process_group import ProcessGroup
from hpc.data.gather import gather, gather_for_metrics
from hpc.data.nest import map_leaves, parts_of
from hpc.data.rows import CurrentRows
from hpc.errors import ConfigurationError
from hpc.runtime.split import split
from hpc.say import clear_of_bars, say
from hpc.world import World

REDUCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda everybodys: everybodys.sum(0, dtype=everybodys.dtype),
    "mean": lambda everybodys: everybodys.mean(0),
    "max": lambda everybodys: everybodys.amax(0),
}


class Processes:
    """The part of a Runtime that knows the other ranks."""

    world: World
    group: ProcessGroup
    current_rows: CurrentRows
    _trigger = False

    def _settle(self) -> None:
        """Before a collective: where the user has left a loop, all ranks save first."""

    @property
    def is_main_process(self) -> bool:
        """Whether this is rank 0: it prints, logs and commits."""
        return self.world.rank == 0

    @property
    def is_local_main_process(self) -> bool:
        """Whether this is the first rank of its node."""
        return self.world.local_rank == 0

    @property
    def is_last_process(self) -> bool:
        """Whether this is the rank with the highest number."""
        return self.world.rank == self.world.world_size - 1

    @property
    def process_index(self) -> int:
        """This process's rank."""
        return self.world.rank

    @property
    def local_process_index(self) -> int:
        """This process's rank on its node."""
        return self.world.local_rank

    @property
    def num_processes(self) -> int:
        """The world size."""
        return self.world.world_size

    def on_main_process(self, function: Callable[..., Any]) -> Any:
        """Decorator: the function runs on rank 0; elsewhere it returns None."""
        return _only_if(self.is_main_process, function)

    def on_local_main_process(self, function: Callable[..., Any]) -> Any:
        """Decorator: the function runs on the first rank of each node; elsewhere it returns None."""
        return _only_if(self.is_local_main_process, function)

    def on_last_process(self, function: Callable[..., Any]) -> Any:
        """Decorator: the function runs on the last rank; elsewhere it returns None."""
        return _only_if(self.is_last_process, function)

    def on_process(self, function: Callable[..., Any] | None = None, process_index: int | None = None) -> Any:
        """Decorator: the function runs on this rank; elsewhere it returns None.

        Raises:
            ConfigurationError: There is no such rank.
        """
        _check_index("process_index", process_index, self.world.world_size)
        return _only_if(self.world.rank == process_index, function)

    def on_local_process(
        self, function: Callable[..., Any] | None = None, local_process_index: int | None = None
    ) -> Any:
        """Decorator: the function runs on this rank of each node; elsewhere it returns None.

        Raises:
            ConfigurationError: There is no such rank.
        """
        _check_index("local_process_index", local_process_index, self.world.local_world_size)
        return _only_if(self.world.local_rank == local_process_index, function)

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Rank 0 goes through the block before the others begin it, as for a download. Collective."""
        with self._first(self.is_main_process):
            yield

    @contextmanager
    def local_main_process_first(self) -> Iterator[None]:
        """The first rank of each node goes through the block before the others of its node begin it. Collective."""
        with self._first(self.is_local_main_process):
            yield

    @contextmanager
    def split_between_processes(self, inputs: Any, apply_padding: bool = False) -> Iterator[Any]:
        """This rank's part of what every rank has; the first ranks get one more where it does not divide.

        Args:
            inputs: A list, tuple, tensor or Hugging Face data set; or a mapping of such, equally long.
            apply_padding: Repeat the last entry of all, so that every rank has equally many.

        Raises:
            ConfigurationError: It is none of these, or the entries of a mapping differ in length.
        """
        yield split(inputs, self.world, apply_padding) if self.world.world_size > 1 else inputs

    def wait_for_everyone(self) -> None:
        """Return when every rank is here. Collective."""
        self._settle()
        self.group.meet()

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

    def gather_for_metrics(self, values: Any, use_gather_object: bool = False) -> Any:
        """Every sample's rows, each sample once, in the order of the pass. Collective.

        Inside a pass over a prepared loader, what ranks computed for repeated samples is left out; elsewhere, `gather`.

        Args:
            values: As for `gather`, with rows for each sample of the batch; a list or tuple that holds no tensor has
                an entry for each, and is joined.
            use_gather_object: As Accelerate has it, for lists without tensors, which are joined in either case.

        Raises:
            ConfigurationError: A value has no row for each sample, or the ranks' do not go together.
        """
        if use_gather_object and (not isinstance(values, list) or any(map(_has_tensors, values))):
            raise ConfigurationError(
                "gather_for_metrics takes use_gather_object=True for a list without tensors only, but got a "
                f"{type(values).__name__}{' of tensors' if isinstance(values, list) else ''}: leave it out, and every "
                "tensor is joined by itself."
            )
        self._settle()
        return gather_for_metrics(values, self.group, self.current_rows.rows)

    def reduce(self, tensor: Any, reduction: str = "sum", scale: float = 1.0) -> Any:
        """The sum, mean or maximum over all ranks, of each element. Collective.

        Args:
            tensor: Of one shape and type on all ranks; or mappings, sequences and data classes of such.
            reduction: sum, mean or max.
            scale: As Accelerate has it, which heeds it on XLA only; here it is 1.

        Raises:
            ConfigurationError: Another reduction or scale, something that is no tensor, a mean of integers, or ranks
                that differ.
        """
        if reduction not in REDUCTIONS or scale != 1.0:
            raise ConfigurationError(
                f"runtime.reduce takes reduction={', '.join(REDUCTIONS)} and scale=1.0, but got {reduction!r} and "
                f"{scale!r}: multiply the result."
            )

        def checked(each: Any) -> torch.Tensor:
            tensor = _tensor(each, "reduce")
            if reduction == "mean" and not (tensor.is_floating_point() or tensor.is_complex()):
                raise ConfigurationError(
                    f'runtime.reduce takes reduction="mean" of fractions, but got {tensor.dtype}: write x.float().'
                )
            return tensor[None]

        return map_leaves(_is_leaf, REDUCTIONS[reduction], self.gather(map_leaves(_is_leaf, checked, tensor)))

    def pad_across_processes(self, tensor: Any, dim: int = 0, pad_index: int = 0, pad_first: bool = False) -> Any:
        """The tensor filled up to the greatest length that any rank has. Collective.

        Args:
            tensor: Or mappings, sequences and data classes of such, made alike on all ranks; one that has no dimension
                `dim` stays as it is.
            dim: Which dimension is filled up.
            pad_index: With what.
            pad_first: Before what is there, not behind.

        Raises:
            ConfigurationError: Something is no tensor, or ranks have different numbers of them.
        """
        shapes: list[tuple[int, ...]] = []
        map_leaves(_is_leaf, lambda each: shapes.append(tuple(_tensor(each, "pad_across_processes").shape)), tensor)
        self._settle()
        everybodys = self.group.all_gather(shapes)
        if len({tuple(map(len, each)) for each in everybodys}) > 1:
            raise ConfigurationError(
                "runtime.pad_across_processes takes tensors with as many dimensions on all ranks, but got shapes "
                f"{'; '.join(map(str, everybodys))}: give every rank the same ones."
            )
        lengths = [_lengths(dim, of_one) for of_one in zip(*everybodys, strict=True)]
        numbers = iter(lengths)
        return map_leaves(_is_leaf, lambda each: _padded(each, dim, next(numbers), pad_index, pad_first), tensor)

    def set_trigger(self) -> None:
        """Let `check_trigger` be true on all ranks when it is next asked."""
        self._trigger = True

    def check_trigger(self) -> bool:
        """Whether any rank has called `set_trigger` since this was last true. Collective."""
        self._settle()
        is_set = any(self.group.all_gather(self._trigger))
        self._trigger = self._trigger and not is_set
        return is_set

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

    @contextmanager
    def _first(self, goes_first: bool) -> Iterator[None]:
        if not goes_first:
            self.group.meet()
        try:
            yield
        finally:
            if goes_first:  # after an error too, so that nobody waits for it
                self.group.meet()


def _only_if(is_here: bool, function: Callable[..., Any] | None) -> Any:
    """The function, or one that does nothing; without a function, a decorator."""
    if function is None:
        return functools.partial(_only_if, is_here)

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) if is_here else None

    return called


def _check_index(name: str, index: int | None, count: int) -> None:
    if index is None or not 0 <= index < count:
        raise ConfigurationError(f"{name} must be one of 0 to {count - 1}, but is {index!r}: name a rank that exists.")


def _is_leaf(thing: Any) -> bool:
    return parts_of(thing) is None


def _has_tensors(thing: Any) -> bool:
    found: list[Any] = []
    map_leaves(lambda each: isinstance(each, torch.Tensor), found.append, thing)
    return bool(found)


def _tensor(thing: Any, method: str) -> torch.Tensor:
    if not isinstance(thing, torch.Tensor):
        raise ConfigurationError(
            f"runtime.{method} takes tensors, but got {thing!r}: write torch.tensor(...), or use runtime.gather."
        )
    return thing.detach()


def _lengths(dim: int, shapes: tuple[tuple[int, ...], ...]) -> int:
    """The greatest length of one tensor on any rank; 0 where it has no such dimension."""
    has_it = -len(shapes[0]) <= dim < len(shapes[0])
    return max(shape[dim] for shape in shapes) if has_it else 0


def _padded(tensor: torch.Tensor, dim: int, length: int, value: int, first: bool) -> torch.Tensor:
    missing = length - tensor.shape[dim] if length else 0
    if not missing:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = missing
    parts = [tensor.new_full(shape, value), tensor]
    return torch.cat(parts if first else parts[::-1], dim)
