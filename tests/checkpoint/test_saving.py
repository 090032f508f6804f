"""What a save does to training: nothing, until the next one is due, or until it has failed."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from hpc import Runtime, failpoints
from hpc.checkpoint.store import CheckpointStore
from hpc.errors import SaveError
from hpc.run.events import Committed, SaveFailed, Stopped
from hpc.run.journal import read_journal
from tests.conftest import Run
from tests.programs.jobs import Points
from tests.runtime.test_runtime import config
from tests.support.events import newest_commit, told

AtStep = Callable[[Runtime, int], None]


def train(settings: dict[str, Any], at_step: AtStep, steps: int = 8) -> Runtime:
    with Runtime(settings) as runtime:
        model = nn.Linear(16, 4)
        model, optimizer, loader = runtime.prepare(
            model, torch.optim.AdamW(model.parameters()), DataLoader(Points(), 4)
        )
        for points, classes in runtime.steps(loader, total=steps):
            with runtime.accumulate():
                runtime.backward(nn.functional.cross_entropy(model(points), classes))
                optimizer.step()
                optimizer.zero_grad()
            at_step(runtime, runtime.step)
    return runtime


def every_two_steps(directory: Path, **options: Any) -> dict[str, Any]:
    return config(directory, checkpoint={"every_steps": 2, "keep": 9, **options})


def saved(directory: Path) -> list[int]:
    return [checkpoint.step for checkpoint in CheckpointStore(directory / "checkpoints").list()]


class SlowDisk:
    """A disk that hangs until somebody lets it go on: a save waits where its manifest has been written."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def block(self) -> None:
        armed: Any = self
        failpoints.ARMED = armed

    def passed(self, name: str, _rank: int) -> None:
        """What a save calls at each of its stages."""
        if name == "manifest_flushed":
            self.released.wait(300)

    def release(self) -> None:
        failpoints.ARMED = None
        self.released.set()


class Listener(io.StringIO):
    """Standard output that does something when it hears some words."""

    def __init__(self, words: str, action: Callable[[], None]) -> None:
        super().__init__()
        self.words, self.action = words, action

    def write(self, text: str) -> int:
        if self.words in text:
            self.action()
        return super().write(text)


def test_a_slow_disk_delays_the_next_save_and_says_so(tmp_path: Path) -> None:
    disk = SlowDisk()
    listener = Listener("the save before the one of step 4 is still being written", disk.release)
    seen: list[int] = []

    def at_step(runtime: Runtime, step: int) -> None:
        del runtime
        seen.append(step)
        if step == 1:
            disk.block()

    with contextlib.redirect_stdout(listener):
        train(every_two_steps(tmp_path), at_step)
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]
    assert saved(tmp_path) == [8, 6, 4, 2]
    assert listener.getvalue().count("still being written") == 1


def test_a_stop_with_a_save_in_flight_lets_it_finish_and_saves_the_last_step_too(tmp_path: Path) -> None:
    disk = SlowDisk()

    def at_step(runtime: Runtime, step: int) -> None:
        del runtime
        if step == 1:
            disk.block()
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Thread(target=disk.release).start()

    with pytest.raises(SystemExit, match="75"):
        train(every_two_steps(tmp_path), at_step)
    assert saved(tmp_path) == [3, 2]
    assert isinstance(read_journal(tmp_path)[-1], Stopped)


def test_a_stop_at_the_step_that_is_being_saved_waits_for_that_save(tmp_path: Path) -> None:
    disk = SlowDisk()

    def at_step(runtime: Runtime, step: int) -> None:
        del runtime
        if step == 2:
            disk.block()
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Thread(target=disk.release).start()

    with pytest.raises(SystemExit, match="75"):
        train(every_two_steps(tmp_path), at_step)
    assert saved(tmp_path) == [2]
    assert [event.step for event in told(tmp_path, Committed)] == [2]


def test_when_the_time_that_is_left_is_shorter_than_a_save_the_one_before_must_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc.stop.agreement.AGREEMENT_SECONDS", 0.0)  # the clock is looked at after every step

    def at_step(runtime: Runtime, step: int) -> None:
        if step == 3:
            while newest_commit(tmp_path) != 2:
                time.sleep(0.01)
            runtime.requests.watch_clock(time.time(), 0.0)

    with pytest.raises(SystemExit, match="75"):
        train(every_two_steps(tmp_path), at_step)
    assert saved(tmp_path) == [2]
    assert "had no time to save more than step 2" in capsys.readouterr().out


def gone_between(first: int, last: int, directory: Path) -> AtStep:
    """The checkpoints' directory is away while these steps are taken, and each save has ended before the next step."""

    def at_step(runtime: Runtime, step: int) -> None:
        del runtime
        while any(thread.name == "hpc-save" for thread in threading.enumerate()):
            time.sleep(0.01)
        if step == first:
            (directory / "checkpoints").rename(directory / "away")
        if step == last + 1:
            (directory / "away").rename(directory / "checkpoints")

    return at_step


def test_training_goes_on_without_a_checkpoint_that_could_not_be_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(every_two_steps(tmp_path, on_error="continue"), gone_between(4, 5, tmp_path))
    assert saved(tmp_path) == [8, 6, 2]
    (failure,) = told(tmp_path, SaveFailed)
    assert failure.step == 4
    assert "it has vanished. Training goes on without the checkpoint of step 4." in capsys.readouterr().out


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_save_that_fails_stops_training_at_the_next_boundary(tmp_path: Path, asynchronous: bool) -> None:
    seen: list[int] = []
    gone = gone_between(4, 99, tmp_path)

    def at_step(runtime: Runtime, step: int) -> None:
        seen.append(step)
        gone(runtime, step)

    with pytest.raises(SaveError, match="checkpoints could not be written: it has vanished"):
        train(every_two_steps(tmp_path, asynchronous=asynchronous), at_step)
    assert seen[:4] == [1, 2, 3, 4]
    assert len(seen) <= (5 if asynchronous else 4)  # it may have failed before that very boundary was over


def test_the_last_save_must_succeed_whatever_the_policy(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="checkpoints could not be written: it has vanished"):
        train(every_two_steps(tmp_path, on_error="continue"), gone_between(7, 99, tmp_path))


def test_saving_behind_training_saves_the_same_bytes(tmp_path: Path) -> None:
    for asynchronous in (True, False):
        train(every_two_steps(tmp_path / str(asynchronous), asynchronous=asynchronous), lambda *_: None)
    files = ("model.safetensors", "optimizer.safetensors", "trainer.pt")
    for step in (2, 4, 6, 8):
        first, second = (tmp_path / str(each) / "checkpoints" / f"step_{step:08d}" for each in (True, False))
        assert [(first / name).read_bytes() == (second / name).read_bytes() for name in files] == [True] * 3


def train_and_lose_the_directory(cfg: Any) -> float:
    """The target of a run: its checkpoints' directory goes away in the fourth step."""

    def at_step(runtime: Runtime, step: int) -> None:
        if step == 4:
            while newest_commit(runtime.directory) != 2:
                time.sleep(0.01)
            runtime.wait_for_everyone()
        if step == 4 and runtime.is_main_process:
            (runtime.directory / "checkpoints").rename(runtime.directory / "away")

    train(cfg, at_step, steps=500)
    return 0.0


@pytest.mark.gloo
def test_all_ranks_stop_with_74_when_a_save_behind_training_has_failed(run_py: Run, tmp_path: Path) -> None:
    done = run_py(
        "-m", "hardware=cpu", "cluster=local", "run_dir=out", "checkpoint.every_steps=2",
        "experiment.target=tests.checkpoint.test_saving.train_and_lose_the_directory",
    )  # fmt: skip
    assert done.returncode == 74, done.stdout + done.stderr
    (record,) = (tmp_path / "out" / "0" / "failures").glob("*.txt")
    assert "it has vanished" in record.read_text()
    assert [event.step for event in told(tmp_path / "out" / "0", SaveFailed)] == [4]
