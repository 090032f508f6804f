"""A save behind training holds what was true at its step, one at a time, and fails where training can see it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from hpc.checkpoint.background import BackgroundSaver, Flight, Staging
from hpc.checkpoint.load import load_latest
from hpc.checkpoint.save import snapshot
from hpc.checkpoint.store import Checkpoint
from hpc.errors import SaveError
from tests.support.saves import Alone, Life, newest, state


class Slow(Alone):
    """A group that waits for permission before anything is written."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()

    def gather(self, value: Any) -> list[Any]:
        self.may_go_on.wait(60)
        return [value]


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path / "checkpoints")


def test_what_is_saved_is_what_was_true_at_the_step(life: Life) -> None:
    flights: list[Flight] = []
    saver = BackgroundSaver(life.store, group := Slow(), flights.append)
    trained = state(1.0)
    counts = {"seen": [1]}
    saver.start(Staging().hold(snapshot(trained, 1, 0, counts, {})), began=0.0)
    assert saver.is_running()
    with torch.no_grad():
        for tensor in trained.contents({}).tensors.values():
            tensor.fill_(2.0)
    counts["seen"].append(2)
    group.may_go_on.set()
    flight = saver.land()
    assert flight is not None
    assert flight.outcome == Checkpoint(life.store.directory / "step_00000001", 1)
    assert [each.step for each in flights] == [1]
    fresh = state()
    resumed = load_latest(life.store, fresh, Alone(), print)
    assert resumed is not None
    assert resumed.trainer["seen"] == [1]
    assert all(bool((tensor == 1).all()) for tensor in fresh.contents({}).tensors.values())


def test_buffers_are_allocated_once() -> None:
    staging, trained = Staging(), state()
    places = [
        {name: part.tensor.data_ptr() for name, part in staging.hold(snapshot(trained, step, 0, {}, {})).parts.items()}
        for step in (1, 2)
    ]
    live = {tensor.data_ptr() for tensor in trained.contents({}).tensors.values()}
    assert places[0] == places[1]
    assert live.isdisjoint(places[0].values())


def test_a_failure_waits_for_somebody_to_look(life: Life) -> None:
    saver = BackgroundSaver(life.store, Alone(), print)
    life.save(1)
    Life(life.store.directory)
    saver.start(life.contents(2, 2.0), began=0.0)
    flight = saver.land()
    assert flight is not None
    assert isinstance(flight.outcome, SaveError)
    assert "a newer one has started" in str(flight.outcome)
    assert saver.land() is None
    assert saver.failure is None
    assert newest(life.store, []) == 1


def test_an_error_of_another_kind_is_kept_as_it_is(life: Life) -> None:
    class Dead(Alone):
        def broadcast(self, value: Any) -> Any:
            raise RuntimeError(f"Connection closed by peer before {value}")

    saver = BackgroundSaver(life.store, Dead(), print)
    saver.start(life.contents(2, 2.0), began=0.0)
    flight = saver.land()
    assert flight is not None
    assert isinstance(flight.outcome, RuntimeError)
