"""The order of samples is a bijection that needs no memory."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.data.order import Order


def epoch(order: Order, number: int = 0) -> list[int]:
    start = number * order.length
    positions = np.arange(start, start + order.length, dtype=np.uint64)
    return [int(index) for index in order.indices(positions)]


@given(st.integers(1, 500), st.integers(0, 2**63), st.integers(0, 50))
def test_every_epoch_holds_every_sample_once(length: int, seed: int, number: int) -> None:
    assert sorted(epoch(Order(length, seed, shuffle=True), number)) == list(range(length))


@given(st.integers(1, 300), st.integers(0, 2**31), st.lists(st.integers(0, 3000), min_size=1, max_size=30))
def test_a_position_is_the_same_however_it_is_reached(length: int, seed: int, positions: list[int]) -> None:
    order = Order(length, seed, shuffle=True)
    together = order.indices(np.array(positions, dtype=np.uint64))
    alone = [order.indices(np.array([position], dtype=np.uint64))[0] for position in positions]
    assert together.tolist() == alone


def test_epochs_and_seeds_differ() -> None:
    order = Order(1000, 0, shuffle=True)
    assert epoch(order, 0) != epoch(order, 1)
    assert epoch(order, 0) != epoch(Order(1000, 1, shuffle=True), 0)


def test_without_shuffling_samples_come_as_they_lie() -> None:
    assert epoch(Order(7, 3, shuffle=False), 2) == list(range(7))


def test_a_thousand_million_samples_need_no_table() -> None:
    order = Order(10**9, 5, shuffle=True)
    tracemalloc.start()
    indices = order.indices(np.arange(10**12, 10**12 + 8192, dtype=np.uint64))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ((indices >= 0) & (indices < 10**9)).all()
    assert peak_bytes < 1_000_000


def chi_square_excess(counts: Any, expected: Any) -> float:
    """Chi-square in standard deviations above what a fair shuffle gives; the seeds are fixed, so it never changes."""
    freedom = np.size(counts) - 1
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    return (chi_square - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("length", [3, 4, 6])
def test_few_samples_come_in_every_arrangement_equally_often(length: int) -> None:
    seen = Counter(tuple(epoch(Order(length, seed, shuffle=True))) for seed in range(4000))
    counts = np.array([seen[arrangement] for arrangement in itertools.permutations(range(length))])
    assert abs(chi_square_excess(counts, 4000 / math.factorial(length))) < 4


@pytest.mark.parametrize("length", [16, 160, 1600, 2**13 + 1])
@pytest.mark.parametrize("place", [0, 7, -1])
def test_every_sample_is_equally_often_in_every_place(length: int, place: int) -> None:
    position = np.array([place % length], dtype=np.uint64)
    drawn = [int(Order(length, seed, shuffle=True).indices(position)[0]) for seed in range(4000)]
    edges = np.arange(17) * length // 16
    counts = np.histogram(drawn, bins=edges)[0]
    assert abs(chi_square_excess(counts, 4000 * np.diff(edges) / length)) < 4


@pytest.mark.parametrize("length", [17, 1000, 2**16, 2**16 + 1, 300_000])
def test_neighbours_have_nothing_in_common(length: int) -> None:
    """The step from one sample to the next, around the circle, is any but zero equally often."""
    seeds = range(max(1, min(1000, 200_000 // length)))
    orders = [np.array(epoch(Order(length, seed, shuffle=True))) for seed in seeds]
    steps = np.concatenate([np.diff(order) % length - 1 for order in orders])
    edges = np.arange(17) * (length - 1) // 16
    counts = np.histogram(steps, bins=edges)[0]
    assert abs(chi_square_excess(counts, len(steps) * np.diff(edges) / (length - 1))) < 4


PAIRS = {
    "the next epoch": lambda seed: (epoch(Order(5000, seed, True), 0), epoch(Order(5000, seed, True), 1)),
    "an epoch far away": lambda seed: (epoch(Order(5000, seed, True), 3), epoch(Order(5000, seed, True), 1027)),
    "the next seed": lambda seed: (epoch(Order(5000, seed, True), 0), epoch(Order(5000, seed + 1, True), 0)),
    "the next seed's last epoch": lambda seed: (
        epoch(Order(5000, seed, True), 1),
        epoch(Order(5000, seed + 1, True), 0),
    ),
    "as they lie": lambda seed: (epoch(Order(5000, seed, True), 0), list(range(5000))),
}


@pytest.mark.parametrize("other", PAIRS)
def test_an_order_tells_nothing_about(other: str) -> None:
    """Fair shuffles have uncorrelated ranks, spread like 1 / sqrt(n - 1), and agree in one place on average."""
    pairs = [PAIRS[other](seed) for seed in range(40)]
    correlations = np.array([np.corrcoef(*pair)[0, 1] for pair in pairs]) * math.sqrt(4999)
    agreements = sum(int(np.equal(*pair).sum()) for pair in pairs)
    assert np.abs(correlations).max() < 4
    assert 0.7 < correlations.std() < 1.3
    assert abs(agreements - 40) < 4 * math.sqrt(40)


@given(st.sampled_from([2**k + d for k in range(1, 17) for d in (-1, 0, 1)]), st.integers(-5, 2**64))
@settings(max_examples=60)
def test_sizes_around_powers_of_two_lose_nothing(length: int, seed: int) -> None:
    seen = Order(length, seed, shuffle=True).indices(np.arange(length, dtype=np.uint64))
    assert np.array_equal(np.sort(seen), np.arange(length))
