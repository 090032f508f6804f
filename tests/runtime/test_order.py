"""The order of samples is a bijection that needs no memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.runtime.order import Order


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
    indices = order.indices(np.array([0, 999_999_999, 10**12], dtype=np.uint64))
    assert ((indices >= 0) & (indices < 10**9)).all()


@pytest.mark.parametrize("length", [16, 160, 1600])
def test_every_place_is_reached_about_equally_often(length: int) -> None:
    firsts = np.array([epoch(Order(length, seed, shuffle=True))[0] for seed in range(4000)])
    counts = np.histogram(firsts, bins=16, range=(0, length))[0]
    chi_square = float(((counts - 250) ** 2 / 250).sum())
    assert chi_square < 45  # 15 degrees of freedom: a fair shuffle exceeds 45 once in 10,000 times; seeds are fixed


def test_successive_epochs_are_not_correlated() -> None:
    order = Order(5000, 1, shuffle=True)
    correlation = np.corrcoef(epoch(order, 0), epoch(order, 1))[0, 1]
    assert abs(correlation) < 0.05
