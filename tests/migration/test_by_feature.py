"""Accelerate's examples by feature, ported: each beside the original logic, on the same digits, ends with the same."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from hpc import Runtime, find_executable_batch_size
from hpc.stop.requests import StopCause, stop_requests
from tests.support.process_state import in_another_process

accelerate = pytest.importorskip("accelerate")
datasets = pytest.importorskip("sklearn.datasets")
selection = pytest.importorskip("sklearn.model_selection")

SAMPLES = 256


@cache
def loaded() -> Any:
    """Read once."""
    return datasets.load_digits(return_X_y=True)


def digits(rows: Any = range(SAMPLES)) -> TensorDataset:
    """Images of 8x8 pixels, and which digit each is."""
    images, labels = loaded()
    rows = list(rows)
    return TensorDataset(torch.tensor(images[rows] / 16, dtype=torch.float32), torch.tensor(labels[rows]))


def parts(batch_size: int = 16, data: TensorDataset | None = None) -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    return model, torch.optim.AdamW(model.parameters(), 0.01), DataLoader(data or digits(), batch_size)


def config(directory: Path, accumulation: int = 1, **runtime: Any) -> dict[str, Any]:
    return {
        "run_dir": str(directory),
        "runtime": {"device": "cpu", "trackers": [], **runtime},
        "strategy": {"accumulation_steps": accumulation},
    }


def accelerator_of(accumulation: int = 1) -> Any:
    return accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulation)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([each.detach().flatten().clone() for each in model.parameters()])


def step(here: Any, model: Any, optimizer: Any, batch: Any) -> float:
    """The lines that both have."""
    with here.accumulate(model):
        inputs, labels = batch
        loss = cross_entropy(model(inputs), labels)
        here.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def batches_of(here: Any, loader: Any, epochs: int = 1) -> Iterator[Any]:
    """In Accelerate's loop, which has the same loader in each epoch, or in that of hpc."""
    passes: Any = here.epochs(loader, total=epochs) if isinstance(here, Runtime) else [loader] * epochs
    for each in passes:
        yield from each


def train(here: Any, batch_size: int = 16, epochs: int = 1, each: Callable[[Any, float], Any] = lambda *_: None) -> Any:
    """Until the end, or until `each` says so."""
    model, optimizer, loader = here.prepare(*parts(batch_size))
    for batch in batches_of(here, loader, epochs):
        if each(here, step(here, model, optimizer, batch)):
            break
    return weights(here.unwrap_model(model))


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(ours, weights(parts()[0]), atol=1e-3)  # something was learnt


def test_gradient_accumulation(tmp_path: Path) -> None:
    with Runtime(config(tmp_path, accumulation=4)) as runtime:
        same(train(runtime, 8, epochs=2), train(accelerator_of(4), 8, epochs=2))


def with_gaps() -> TensorDataset:
    """Digits above four are no targets, so that batches have different numbers of them."""
    inputs, labels = digits().tensors
    return TensorDataset(inputs, torch.where(labels > 4, -100, labels))


def test_gradient_accumulation_for_autoregressive_models(tmp_path: Path) -> None:
    def count(batch: Any) -> Any:
        return (batch[1] != -100).sum()

    with Runtime(config(tmp_path, accumulation=4)) as runtime:
        model, optimizer, loader = runtime.prepare(*parts(8, with_gaps()))
        for inputs, labels in runtime.steps(loader, total=8, weigh=count):
            runtime.backward(cross_entropy(model(inputs), labels))
            optimizer.step()
            optimizer.zero_grad()
        ours = weights(model)
    accelerator = accelerator_of(4)
    model, optimizer, loader = accelerator.prepare(*parts(8, with_gaps()))
    iterator = iter(loader)
    for _ in range(8):
        window = [next(iterator) for _ in range(4)]
        items = sum(int(count(batch)) for batch in window)
        for inputs, labels in window:
            loss = cross_entropy(model(inputs), labels, reduction="sum")
            accelerator.backward(loss * 4 / items)
        optimizer.step()
        optimizer.zero_grad()
    same(ours, weights(accelerator.unwrap_model(model)))


def fits(batch_size: int, tried: list[int]) -> None:
    """More than sixteen do not."""
    tried.append(batch_size)
    if batch_size > 16:
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_automatic_gradient_accumulation(tmp_path: Path) -> None:
    ours: list[int] = []
    theirs: list[int] = []

    @find_executable_batch_size(starting_batch_size=64)
    def with_hpc(batch_size: int) -> torch.Tensor:
        fits(batch_size, ours)
        with Runtime(config(tmp_path, accumulation=64 // batch_size)) as runtime:
            result: torch.Tensor = train(runtime, batch_size)
            return result

    def with_accelerate(batch_size: int) -> torch.Tensor:
        fits(batch_size, theirs)
        result: torch.Tensor = train(accelerator_of(64 // batch_size), batch_size)
        return result

    halved: Any = accelerate.utils.find_executable_batch_size(
        with_accelerate, starting_batch_size=64, reduce_batch_size_fn=lambda: 64 >> len(theirs)
    )
    same(with_hpc(), halved())
    assert ours == theirs == [64, 32, 16]


def test_memory(tmp_path: Path) -> None:
    tried: list[int] = []

    @find_executable_batch_size(starting_batch_size=64)
    def with_hpc(batch_size: int) -> torch.Tensor:
        with Runtime(config(tmp_path / str(batch_size))) as runtime:
            fits(batch_size, tried)
            result: torch.Tensor = train(runtime, batch_size)
            return result

    same(with_hpc(), train(accelerator_of(), 16))
    assert tried == [64, 32, 16]


def test_checkpointing(tmp_path: Path) -> None:
    """Stopped after five of sixteen steps, and resumed."""

    def stop(runtime: Runtime, _: float) -> None:
        if runtime.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit, match="75"), Runtime(config(tmp_path / "ours")) as runtime:
        train(runtime, each=stop)
    stop_requests().cause = StopCause.NONE
    in_another_process()
    with Runtime(config(tmp_path / "ours")) as runtime:
        ours = train(runtime)
    for life in range(2):
        accelerator = accelerator_of()
        model, optimizer, loader = accelerator.prepare(*parts())
        if life:
            accelerator.load_state(str(tmp_path / "theirs"))
            loader = accelerator.skip_first_batches(loader, 5)
        for number, batch in enumerate(loader, 1):
            step(accelerator, model, optimizer, batch)
            if number == 5 and not life:
                accelerator.save_state(str(tmp_path / "theirs"))
                break
    same(ours, weights(accelerator.unwrap_model(model)))


def right(here: Any, model: nn.Module, loader: Any) -> tuple[int, int]:
    """How many digits are told right, of how many."""
    model.eval()
    with torch.no_grad():
        pairs = [here.gather_for_metrics((model(x).argmax(1), y)) for x, y in loader]
    model.train()
    told, true = (torch.cat(each) for each in zip(*pairs, strict=True))
    return int((told == true).sum()), len(true)


def test_cross_validation(tmp_path: Path) -> None:
    def fold(here: Any, train_rows: Any, test_rows: Any) -> tuple[int, int]:
        model, optimizer, loader = here.prepare(*parts(data=digits(train_rows)))
        for batch in batches_of(here, loader, 3):
            step(here, model, optimizer, batch)
        return right(here, model, here.prepare(DataLoader(digits(test_rows), 16)))

    ours, theirs = [], []
    for number, rows in enumerate(selection.KFold(3).split(range(SAMPLES))):
        with Runtime(config(tmp_path), name=f"fold_{number}") as runtime:
            ours.append(fold(runtime, *rows))
        theirs.append(fold(accelerator_of(), *rows))
    assert ours == theirs
    assert sum(each for _, each in ours) == SAMPLES
    assert sum(each for each, _ in ours) > SAMPLES // 3


def test_early_stopping(tmp_path: Path) -> None:
    def patience(taken: list[float]) -> Callable[[Any, float], Any]:
        def each(here: Any, loss: float) -> Any:
            taken.append(loss)
            if loss < 1.5:
                here.set_trigger()
            return here.check_trigger()

        return each

    ours: list[float] = []
    theirs: list[float] = []
    with Runtime(config(tmp_path)) as runtime:
        mine = train(runtime, epochs=4, each=patience(ours))
    same(mine, train(accelerator_of(), epochs=4, each=patience(theirs)))
    assert len(ours) == len(theirs) < 64


class ScheduleFree(torch.optim.Optimizer):
    """Schedule-free SGD (Defazio et al., "The Road Less Scheduled", 2024), as short as it can be."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.5, "beta": 0.9, "count": 0, "trains": True})

    def train(self) -> None:
        self._move(True, lambda group: 1 - group["beta"])

    def eval(self) -> None:
        self._move(False, lambda group: 1 - 1 / group["beta"])

    @torch.no_grad()
    def _move(self, trains: bool, weight: Callable[[Any], float]) -> None:
        for group in self.param_groups:
            for each in group["params"] if group["trains"] != trains else ():
                if "z" in self.state[each]:
                    each.lerp_(self.state[each]["z"], weight(group))
            group["trains"] = trains

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            group["count"] += 1
            for each in group["params"]:
                z = self.state[each].setdefault("z", each.clone())
                each.lerp_(z, 1 / group["count"])
                each.add_(each.grad, alpha=group["lr"] * (group["beta"] * (1 - 1 / group["count"]) - 1))
                z.sub_(each.grad, alpha=group["lr"])


def test_schedule_free(tmp_path: Path) -> None:
    def evaluated(here: Any) -> Any:
        model, _, loader = parts()
        model, optimizer, loader = here.prepare(model, ScheduleFree(model.parameters()), loader)
        optimizer.train()
        for batch in batches_of(here, loader, 2):
            step(here, model, optimizer, batch)
        optimizer.eval()
        return weights(here.unwrap_model(model))

    with Runtime(config(tmp_path)) as runtime:
        same(evaluated(runtime), evaluated(accelerator_of()))


def test_multi_process_metrics(tmp_path: Path) -> None:
    """The last batch is not full, and no digit is counted twice."""

    def measured(here: Any) -> tuple[int, int]:
        model, optimizer, loader = here.prepare(*parts())
        for batch in batches_of(here, loader, 3):
            step(here, model, optimizer, batch)
        return right(here, model, here.prepare(DataLoader(digits(range(250)), 16)))

    with Runtime(config(tmp_path)) as runtime:
        ours = measured(runtime)
    assert ours == measured(accelerator_of())
    assert ours[1] == 250


def test_profiler(tmp_path: Path) -> None:
    with Runtime(config(tmp_path, profile={"start_step": 3, "steps": 2})) as runtime:
        ours = train(runtime)
    same(ours, train(accelerator_of()))
    assert (tmp_path / "profile" / "rank_0.json.gz").stat().st_size


def test_tracking(tmp_path: Path) -> None:
    theirs: list[float] = []
    with Runtime(config(tmp_path)) as runtime:
        train(runtime, each=lambda here, loss: here.log({"loss": loss}, step=here.step))
    train(accelerator_of(), each=lambda _, loss: theirs.append(loss))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 17))
    assert [row["loss"] for row in rows] == pytest.approx(theirs)
