"""Ranks share one global order: nothing twice, nothing lost, whatever the world size."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import signal
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    DataLoader,
    Dataset,
    get_worker_info,
)

from hpc.connect.process_group import ProcessGroup
from hpc.connect.sealed import SealedStore
from hpc.data.batches import EndlessBatches, OnePass
from hpc.data.loader import PreparedLoader
from hpc.data.nest import map_leaves, to_device
from hpc.data.order import Order
from hpc.data.rows import CurrentRows
from hpc.data.share import Share
from hpc.errors import ConfigurationError
from hpc.world import resolve_world


class Numbers(Dataset[int]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


class Noise(Numbers):
    """Draws from every generator that user code draws from."""

    def __getitem__(self, index: int) -> Any:
        return index, random.random(), float(np.random.random()), float(torch.rand(()))


def prepared(loader: DataLoader[Any], seed: int = 0) -> PreparedLoader:
    world = resolve_world({})
    group = ProcessGroup(world, torch.device("cpu"), SealedStore(torch.distributed.HashStore(), b""), words=None)
    return PreparedLoader(loader, group, seed, CurrentRows())


def consumed(
    order: Order, world_size: int, batch_size: int, accumulation: int, start: int, steps: int
) -> list[set[int]]:
    """The set of samples of each global batch."""
    streams = [iter(EndlessBatches(order, Share(rank, world_size, batch_size), start)) for rank in range(world_size)]
    return [
        {index for stream in streams for batch in itertools.islice(stream, accumulation) for index in batch}
        for _ in range(steps)
    ]


@pytest.mark.parametrize(("world_size", "batch_size", "accumulation"), [(1, 8, 3), (2, 4, 3), (4, 6, 1), (24, 1, 1)])
def test_global_batches_do_not_depend_on_the_world_size(world_size: int, batch_size: int, accumulation: int) -> None:
    order = Order(1000, 7, shuffle=True)
    assert consumed(order, world_size, batch_size, accumulation, 0, 50) == consumed(order, 3, 8, 1, 0, 50)


def test_resuming_sees_the_very_next_global_batch() -> None:
    order = Order(997, 1, shuffle=True)
    uninterrupted = consumed(order, 2, 5, 1, 0, 300)
    assert consumed(order, 2, 5, 1, 10 * 130, 170) == uninterrupted[130:]


def test_an_epoch_that_ends_inside_a_batch_loses_nothing() -> None:
    order = Order(10, 0, shuffle=True)
    (stream,) = [iter(EndlessBatches(order, Share(0, 1, 4), 0))]
    seen = [index for batch in itertools.islice(stream, 5) for index in batch]
    assert sorted(seen[:10]) == sorted(seen[10:20]) == list(range(10))


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 7))
def test_one_pass_gives_each_sample_once_in_order_and_every_rank_equally_many(
    length: int, world_size: int, batch_size: int
) -> None:
    passes = [OnePass(Order(length, 0, False), Share(rank, world_size, batch_size)) for rank in range(world_size)]
    seen = []
    for rows, *batches in zip(passes[0].rows(), *passes, strict=True):
        assert {len(batch) for batch in batches} == {rows.held}
        assert all(0 <= index < length for batch in batches for index in batch)
        seen += [index for batch, count in zip(batches, rows.samples, strict=True) for index in batch[:count]]
    assert seen == list(range(length))
    assert len(passes[0]) == len(list(passes[0]))


def test_one_rank_repeats_nothing() -> None:
    assert list(OnePass(Order(5, 0, False), Share(0, 1, 3))) == [[0, 1, 2], [3, 4]]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_prepared_loader_streams_from_any_position(workers: int) -> None:
    loader = prepared(DataLoader(Numbers(100), batch_size=4, shuffle=True, num_workers=workers), seed=3)
    whole = [batch.tolist() for batch in itertools.islice(loader.stream(0), 10)]
    later = [batch.tolist() for batch in itertools.islice(loader.stream(16), 6)]
    assert later == whole[4:]


def test_random_draws_in_workers_depend_on_the_position_alone() -> None:
    """Neither a resume nor another number of workers changes an augmentation."""

    def stream(workers: int, start: int) -> list[Any]:
        loader = prepared(DataLoader(Noise(50), batch_size=2, shuffle=True, num_workers=workers), seed=1)
        batches = itertools.islice(loader.stream(start), 8 - start // 2)
        return [[column.tolist() for column in batch] for batch in batches]

    whole = stream(workers=1, start=0)
    assert stream(workers=2, start=6) == whole[3:]
    assert len({draw for batch in whole for draw in batch[3]}) == 16


def test_workers_survive_the_signals_that_stop_their_rank() -> None:
    loader = prepared(DataLoader(Numbers(1000), batch_size=1, num_workers=2))
    stream = loader.stream(0)
    seen = [int(next(stream)), int(next(stream))]  # one of each worker: both have started
    workers = [psutil.Process(child.pid) for child in multiprocessing.active_children()]
    assert len(workers) >= 2
    for worker, number in itertools.product(workers, (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)):
        worker.send_signal(number)
    seen += [int(batch) for batch in itertools.islice(stream, 49)]
    assert seen == list(range(51))
    assert all(worker.is_running() for worker in workers)


def remember(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    vars(info.dataset)["length"] = worker + 100


class Remembering(Numbers):
    def __getitem__(self, index: int) -> int:
        return self.length


def test_a_worker_starts_with_the_users_own_data_set() -> None:
    loader = DataLoader(Remembering(8), batch_size=1, num_workers=2, worker_init_fn=remember)
    assert [int(batch) for batch in itertools.islice(prepared(loader).stream(0), 4)] == [100, 101, 100, 101]


def test_making_an_iterator_draws_nothing_from_the_global_generator() -> None:
    loader = prepared(DataLoader(Numbers(8), 2))
    before = torch.get_rng_state()
    next(iter(loader))
    assert torch.equal(before, torch.get_rng_state())


def test_a_loader_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"must be a DataLoader\(dataset, batch_size=.*has an empty data set"):
        prepared(DataLoader(Numbers(0)))


@pytest.mark.parametrize(("world_size", "steps"), [(1, 12), (4, 3), (6, 2), (12, 1)])
def test_another_number_of_ranks_keeps_the_global_batch(world_size: int, steps: int) -> None:
    assert Share(0, world_size, 2).accumulation_steps(24) == steps


@pytest.mark.parametrize(
    ("batch_size", "words"),
    [
        (2, r"5 rank\(s\) × 2 sample\(s\) = 10, and 24 / 10 = 2.4 is not .*resume with 1, 2, 3, 4, 6, 12 rank\(s\)"),
        (7, "use a batch_size that divides 24"),
    ],
)
def test_a_global_batch_that_cannot_be_kept_is_refused_with_the_arithmetic(batch_size: int, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Share(0, 5, batch_size).accumulation_steps(24)


def test_batches_keep_their_shape_on_the_way_to_the_device() -> None:
    batch: Any = {"a": torch.zeros(2), "b": (torch.ones(1), "text"), "c": [3]}
    moved = to_device(batch, torch.device("meta"))
    assert moved["a"].is_meta
    assert moved["b"][0].is_meta
    assert moved["b"][1] == "text"
    assert moved["c"] == [3]


def test_a_batch_that_can_move_itself_does() -> None:
    class Batch:
        def to(self, device: torch.device) -> str:
            return f"on {device}"

    assert to_device(Batch(), torch.device("meta")) == "on meta"


class Pair(NamedTuple):
    left: torch.Tensor
    right: str


def test_a_named_tuple_stays_one() -> None:
    assert map_leaves(torch.is_tensor, torch.neg, Pair(torch.ones(()), "kept")) == Pair(torch.tensor(-1.0), "kept")
