"""Ranks share one global order: nothing twice, nothing lost, whatever the world size."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler

from hpc.errors import ConfigurationError
from hpc.runtime.data import EndlessBatches, OnePass, PreparedLoader, Share, to_device
from hpc.runtime.order import Order
from hpc.world import World, resolve_world


class Numbers(Dataset[int]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


def alone() -> World:
    return resolve_world({})


def consumed(
    order: Order, world_size: int, batch_size: int, accumulation: int, start: int, steps: int
) -> list[set[int]]:
    """The set of samples of each global batch."""
    streams = [
        iter(EndlessBatches(order, Share(rank, world_size, batch_size, accumulation), start))
        for rank in range(world_size)
    ]
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


@given(st.integers(0, 60), st.integers(1, 5), st.integers(1, 7))
def test_one_pass_gives_each_sample_to_one_rank(length: int, world_size: int, batch_size: int) -> None:
    passes = [OnePass(length, Share(rank, world_size, batch_size)) for rank in range(world_size)]
    batches = [list(one) for one in passes]
    assert sorted(index for rank in batches for batch in rank for index in batch) == list(range(length))
    assert [len(one) for one in passes] == [len(rank) for rank in batches]
    assert all(batch for rank in batches for batch in rank)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_prepared_loader_streams_from_any_position(workers: int) -> None:
    loader = DataLoader(Numbers(100), batch_size=4, shuffle=True, num_workers=workers)
    prepared = PreparedLoader(loader, alone(), seed=3, accumulation_steps=1, device=torch.device("cpu"))
    whole = [batch.tolist() for batch in itertools.islice(prepared.stream(0), 10)]
    later = [batch.tolist() for batch in itertools.islice(prepared.stream(16), 6)]
    assert later == whole[4:]


def test_making_an_iterator_draws_nothing_from_the_global_generator() -> None:
    prepared = PreparedLoader(DataLoader(Numbers(8), 2), alone(), 0, 1, torch.device("cpu"))
    before = torch.get_rng_state()
    next(iter(prepared))
    assert torch.equal(before, torch.get_rng_state())


def test_a_loader_with_its_own_sampler_is_refused() -> None:
    loader = DataLoader(Numbers(8), batch_sampler=BatchSampler(SequentialSampler(range(8)), 2, drop_last=False))
    with pytest.raises(ConfigurationError, match="must be a DataLoader\\(dataset, batch_size="):
        PreparedLoader(loader, alone(), 0, 1, torch.device("cpu"))


def test_batches_keep_their_shape_on_the_way_to_the_device() -> None:
    batch: Any = {"a": torch.zeros(2), "b": (torch.ones(1), "text"), "c": [3]}
    moved = to_device(batch, torch.device("meta"))
    assert moved["a"].is_meta
    assert moved["b"][0].is_meta
    assert moved["b"][1] == "text"
    assert moved["c"] == [3]
