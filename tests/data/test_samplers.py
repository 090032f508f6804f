"""Whatever the sampler: the same samples for every number of ranks, and the very next ones after a resume."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from hpc.connect.process_group import ProcessGroup
from hpc.connect.sealed import SealedStore
from hpc.data.batches import EndlessBatches, OnePass
from hpc.data.loader import PreparedLoader
from hpc.data.rows import CurrentRows
from hpc.data.samplers import order_of
from hpc.data.share import Share
from hpc.errors import ConfigurationError
from hpc.world import resolve_world

DATA = list(range(20))
ALONE = ProcessGroup(
    resolve_world({}), torch.device("cpu"), SealedStore(torch.distributed.HashStore(), b""), words=None
)


class Own(Sampler[int]):
    """Of somebody's own: draws from a global generator."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[int]:
        return iter([int(self.draw() * 20) for _ in range(12)])


class ByEpoch(Sampler[int]):
    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng(self.epoch).permutation(20)[:10])


class Backwards(RandomSampler):
    """Of torch's type, but with an order of its own."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self) - 1, -1, -1))


class Remembers(Own):
    """What it gives depends on how often it was asked."""

    def __init__(self) -> None:
        super().__init__(random.Random(0).random)


class Lying(Own):
    def __iter__(self) -> Iterator[int]:
        return iter(range(13))


class Endless(Own):
    def __iter__(self) -> Iterator[int]:
        return itertools.count()


class Sizeless(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(5))


SAMPLERS: dict[str, Callable[[], Any]] = {
    "sequential": lambda: SequentialSampler(DATA),
    "some in order": lambda: SequentialSampler(range(7)),
    "random": lambda: RandomSampler(DATA),
    "fewer": lambda: RandomSampler(DATA, num_samples=8),
    "more": lambda: RandomSampler(DATA, num_samples=50),
    "with replacement": lambda: RandomSampler(DATA, replacement=True, num_samples=30),
    "a subset": lambda: SubsetRandomSampler([3, 5, 7, 11, 13]),
    "weighted": lambda: WeightedRandomSampler([0.0] * 6 + [1.0, 3.0] + [0.0] * 12, 40),
    "weighted without replacement": lambda: WeightedRandomSampler([1.0] * 20, 10, replacement=False),
    "one's own": Own,
    "one's own of torch's generator": lambda: Own(lambda: float(torch.rand(()))),
    "one's own of NumPy's generator": lambda: Own(np.random.random),
    "by epoch": ByEpoch,
    "a list": lambda: [4, 2, 9],
    "of torch's type": lambda: Backwards(DATA),
}
each_sampler = pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)


def epoch(sampler: Any, number: int, seed: int = 0) -> list[int]:
    order = order_of(sampler, seed, ALONE)
    return [index for batch in OnePass(order, Share(0, 1, 4), epoch=number) for index in batch]


@each_sampler
def test_an_epoch_is_a_function_of_its_number_and_has_the_samplers_length(make: Callable[[], Any]) -> None:
    epochs = [epoch(make(), number) for number in (0, 1, 7)]
    order = order_of(make(), 0, ALONE)
    positions = np.arange(7 * order.length, 8 * order.length, dtype=np.uint64)
    assert order.indices(positions).tolist() == epochs[2]
    assert {len(each) for each in epochs} == {len(make())}
    assert all(0 <= index < 20 for each in epochs for index in each)


@each_sampler
def test_the_order_is_the_same_for_every_number_of_ranks_and_after_a_resume(make: Callable[[], Any]) -> None:
    def stream(ranks: int, batch_size: int, start: int) -> list[int]:
        endless = [
            iter(EndlessBatches(order_of(make(), 3, ALONE), Share(r, ranks, batch_size), start)) for r in range(ranks)
        ]
        steps = range((120 - start) // (ranks * batch_size))
        return [index for _ in steps for each in endless for index in next(each)]

    whole = stream(1, 4, 0)
    assert stream(2, 2, 0) == stream(4, 1, 0) == whole
    assert stream(2, 6, 48) == whole[48:]


@each_sampler
def test_epochs_are_drawn_anew_where_the_sampler_draws(make: Callable[[], Any]) -> None:
    fixed = isinstance(make(), (SequentialSampler, list, Backwards))
    assert (epoch(make(), 0) == epoch(make(), 1)) == fixed
    assert fixed or isinstance(make(), ByEpoch) or epoch(make(), 0, seed=1) != epoch(make(), 0, seed=2)


def test_drawing_leaves_the_generators_alone() -> None:
    generator = torch.Generator().manual_seed(5)
    before = random.getstate(), torch.get_rng_state(), generator.get_state()
    epoch(Own(), 3)
    epoch(WeightedRandomSampler([1.0] * 20, 10, replacement=False, generator=generator), 3)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.equal(generator.get_state(), before[2])
    assert generator.initial_seed() == 5


def test_weights_are_kept_to() -> None:
    drawn = Counter(epoch(WeightedRandomSampler([0.0, 1.0, 0.0, 3.0, 0.0], 8000), 0))
    assert set(drawn) == {1, 3}
    assert abs(drawn[3] / 8000 - 0.75) < 0.02
    even = Counter(epoch(RandomSampler(range(4), replacement=True, num_samples=8000), 0))
    assert all(abs(even[sample] / 8000 - 0.25) < 0.02 for sample in range(4))


def test_more_samples_than_there_are_come_all_before_one_comes_again() -> None:
    drawn = epoch(RandomSampler(DATA, num_samples=50), 2)
    assert sorted(drawn[:20]) == sorted(drawn[20:40]) == DATA
    assert len(set(drawn[40:])) == 10


def test_a_generator_of_ones_own_is_the_seed_of_the_order() -> None:
    def shuffled(seed: int, runs: int) -> list[int]:
        return epoch(RandomSampler(DATA, generator=torch.Generator().manual_seed(seed)), 0, seed=runs)

    assert shuffled(1, runs=0) == shuffled(1, runs=5) != shuffled(2, runs=0)


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        (
            DistributedSampler(DATA, 2, 0),  # type: ignore[arg-type]
            r"has the sampler DistributedSampler: leave it away, give DataLoader\(..., shuffle=True\) instead",
        ),
        (Remembers(), "The sampler Remembers must give the same whenever it draws the same epoch"),
        (iter([1, 2]), r"a list_iterator must say how many entries it has"),
        (Sizeless(), r"a Sizeless must say how many entries it has, but len\(\) of it fails"),
        (Lying(), r"as its length says \(12\), but gave more in epoch 0"),
        (Endless(), r"as its length says \(12\), but gave more in epoch 0"),
        (WeightedRandomSampler([1.0, float("nan")], 2), "must be finite numbers of at least 0"),
        (WeightedRandomSampler([0.0, 0.0], 2), "not all 0"),
    ],
)
def test_a_sampler_that_cannot_be_dealt_out_is_refused_in_prepare(sampler: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        prepared(DataLoader(DATA, batch_size=2, sampler=sampler))  # type: ignore[arg-type]


def prepared(loader: DataLoader[Any]) -> PreparedLoader:
    return PreparedLoader(loader, ALONE, 0, CurrentRows())


class Buckets(Sampler[list[int]]):
    """Batches of unlike lengths, in another order every time."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[list[int]]:
        return iter(random.sample([[0, 1, 2], [3], [4, 5]], 3))


def test_batches_of_ones_own_are_dealt_out_whole() -> None:
    def loader() -> PreparedLoader:
        return prepared(DataLoader(DATA, batch_sampler=Buckets()))  # type: ignore[arg-type]

    first, second = ([batch.tolist() for batch in loader().epoch_stream(number, 0)] for number in (0, 6))
    assert sorted(first) == sorted(second) == [[0, 1, 2], [3], [4, 5]]
    assert [batch.tolist() for batch in itertools.islice(loader().stream(18), 3)] == second
    assert (loader().samples_per_epoch, len(loader())) == (3, 3)


def test_torchs_batch_sampler_is_the_same_as_a_batch_size() -> None:
    loader = prepared(DataLoader(DATA, batch_sampler=BatchSampler(SequentialSampler(DATA), 8, drop_last=True)))  # type: ignore[arg-type]
    assert [batch.tolist() for batch in loader] == [DATA[:8], DATA[8:16]]
    assert loader.share.batch_size == 8


class Batches:
    """A data set that gives batches, also for several indices at once."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: Any) -> Any:
        return np.array(index) * 10 + np.arange(2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_that_gives_batches_is_dealt_out_batch_by_batch(workers: int) -> None:
    loader = prepared(DataLoader(Batches(), batch_size=None, num_workers=workers))  # type: ignore[arg-type]
    assert [batch.tolist() for batch in loader] == [[10 * number, 10 * number + 1] for number in range(5)]
    assert torch.is_tensor(next(loader.stream(2)))


def test_indices_by_the_list_are_passed_on_by_the_list() -> None:
    sampler: Any = BatchSampler(SequentialSampler(range(4)), 2, drop_last=False)
    loader = prepared(DataLoader(torch.arange(4) * 5, batch_size=None, sampler=sampler))  # type: ignore[arg-type]
    assert [batch.tolist() for batch in loader] == [[0, 5], [10, 15]]
