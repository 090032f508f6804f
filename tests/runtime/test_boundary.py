"""Where a step ends, a loop ends, and what is saved there: in one process, and on two ranks."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from hpc import Runtime
from hpc.checkpoint.store import CheckpointStore
from hpc.errors import ConfigurationError, DivergedError
from hpc.run.events import EndedEarly
from hpc.runtime.boundary import Boundary
from hpc.stop.requests import StopCause, stop_requests
from tests.conftest import ROOT, clean_environment
from tests.programs.jobs import Points
from tests.runtime.test_runtime import config, metrics
from tests.support.events import told
from tests.support.process_state import in_another_process


def model_and_loader(batch_size: int = 4, **options: Any) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
    model = nn.Linear(16, 4)
    return model, torch.optim.SGD(model.parameters(), 0.1), DataLoader(Points(), batch_size, **options)


def learn(runtime: Runtime, model: nn.Module, optimizer: Any, batch: Any) -> torch.Tensor:
    points, classes = batch
    loss = nn.functional.cross_entropy(model(points), classes)
    runtime.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
    return loss


def saved(directory: Path) -> int:
    return CheckpointStore(directory / "checkpoints").list()[0].step


def weights(runtime: Runtime, model: nn.Module) -> torch.Tensor:
    return torch.cat([each.detach().flatten().clone() for each in runtime.unwrap(model).parameters()])


def test_a_step_at_which_nothing_is_due_asks_nobody(tmp_path: Path) -> None:
    """The price of a step is such a call, which no result shows; ranks compare notes by the clock, which is put off."""
    settings = config(tmp_path, runtime={"device": "cpu", "log_every_steps": 20}, checkpoint={"every_steps": 1000})
    steps: list[int] = []

    def look(boundary: Boundary, is_last: bool) -> None:
        steps.append(boundary.step)
        original(boundary, is_last)

    original = Boundary._look
    with patch.object(Boundary, "_look", look), patch("hpc.stop.agreement.AGREEMENT_SECONDS", 1e6):
        train(settings, 50)
    assert steps == [1, 20, 40, 50]


def train(settings: dict[str, Any], total: int, each: Callable[[Runtime], Any] = lambda _: None) -> torch.Tensor:
    """Train until `total`, or until `each` returns something true, which breaks the loop."""
    with Runtime(settings) as runtime:
        model, optimizer, loader = runtime.prepare(*model_and_loader())
        for batch in runtime.steps(loader, total=total):
            learn(runtime, model, optimizer, batch)
            runtime.log(step_seen=runtime.step)
            if each(runtime):
                break
        return weights(runtime, model)


def test_the_step_that_is_taken_is_that_of_its_row(tmp_path: Path) -> None:
    seen: list[int] = []
    train(config(tmp_path), 5, lambda runtime: seen.append(runtime.step))
    assert seen == [1, 2, 3, 4, 5]
    assert [(row["step"], row["step_seen"]) for row in metrics(tmp_path)] == [(n, n) for n in seen]


def test_break_leaves_a_committed_checkpoint_of_where_it_was(tmp_path: Path) -> None:
    left = train(config(tmp_path), 20, lambda runtime: runtime.step == 7)
    assert saved(tmp_path) == 7
    in_another_process()
    seen: list[int] = []
    again = train(config(tmp_path), 20, lambda runtime: seen.append(runtime.step))
    assert (seen, saved(tmp_path)) == ([], 7)
    assert torch.equal(left, again)


def test_sys_exit_in_the_loop_saves_as_break_does(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        train(config(tmp_path), 20, lambda runtime: sys.exit() if runtime.step == 7 else None)
    assert saved(tmp_path) == 7


def test_break_before_the_optimizer_has_stepped_does_not_count(tmp_path: Path) -> None:
    with Runtime(config(tmp_path, strategy={"accumulation_steps": 2})) as runtime:
        model, optimizer, loader = runtime.prepare(*model_and_loader())
        for number, batch in enumerate(runtime.steps(loader, total=20)):
            if number == 6:  # the first micro-batch of the fourth step
                break
            learn(runtime, model, optimizer, batch)
        assert runtime.gather(torch.zeros(())).tolist() == [0.0]
        assert (runtime.step, saved(tmp_path)) == (3, 3)


def test_a_loop_that_was_left_goes_on_in_the_same_life(tmp_path: Path) -> None:
    whole = train(config(tmp_path / "whole"), 12)
    with Runtime(config(tmp_path / "parts")) as runtime:
        model, optimizer, loader = runtime.prepare(*model_and_loader())
        for stop in (5, 12):
            for batch in runtime.steps(loader, total=12):
                learn(runtime, model, optimizer, batch)
                if runtime.step == stop:
                    break
        assert torch.equal(weights(runtime, model), whole)


def test_an_exception_in_the_loop_saves_nothing(tmp_path: Path) -> None:
    def fail(runtime: Runtime) -> None:
        if runtime.step == 7:
            raise ValueError("as asked")

    with pytest.raises(ValueError, match="as asked"):
        train(config(tmp_path), 20, fail)
    assert not CheckpointStore(tmp_path / "checkpoints").list()


def test_stop_ends_the_loop_after_its_step_and_for_later_lives_too(tmp_path: Path) -> None:
    train(config(tmp_path), 20, lambda runtime: runtime.stop("no progress") if runtime.step == 7 else None)
    assert saved(tmp_path) == 7
    (event,) = told(tmp_path, EndedEarly)
    assert (event.step, event.reason) == (7, "no progress")
    in_another_process()
    seen: list[int] = []
    train(config(tmp_path), 20, lambda runtime: seen.append(runtime.step))
    assert seen == []


def test_what_is_logged_after_the_loop_is_kept(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        model, optimizer, loader = runtime.prepare(*model_and_loader())
        for batch in runtime.steps(loader, total=3):
            runtime.log({"loss": learn(runtime, model, optimizer, batch)})
        runtime.log({"accuracy": 0.5}, step=3)
    assert [sorted(row) for row in metrics(tmp_path)] == [["loss", "step"]] * 3 + [["accuracy", "step"]]


@pytest.mark.parametrize("values", [{"step": 3}, {"values": {"step": 3}}])
def test_a_value_called_step_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"values of step 1, which is the `step` of their row, but got step=3"),
        Runtime(config(tmp_path)) as runtime,
    ):
        for _ in runtime.steps(runtime.prepare(DataLoader(Points(), 4)), total=3):
            runtime.log(**values)


@pytest.mark.parametrize("total", [12.5, -1, math.nan, math.inf, "12", None, True])
def test_a_total_that_is_no_whole_number_is_refused(tmp_path: Path, total: Any) -> None:
    with (
        Runtime(config(tmp_path)) as runtime,
        pytest.raises(ConfigurationError, match="must be a whole number of steps"),
    ):
        runtime.steps(runtime.prepare(DataLoader(Points(), 4)), total=total)


def test_a_whole_number_may_be_written_in_any_way(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        loader = runtime.prepare(DataLoader(Points(), 4))
        assert len(list(runtime.steps(loader, total=3.0))) == 3  # type: ignore[arg-type]
        assert len(list(runtime.steps(loader, total=torch.tensor(5)))) == 2  # type: ignore[arg-type]


def test_accumulation_needs_no_word_of_the_loop(tmp_path: Path) -> None:
    """Without accumulate, with it, and with Accelerate's spelling: the same weights."""
    results = []
    for way in ("none", "accumulate", "of a model"):
        with Runtime(config(tmp_path / way, strategy={"accumulation_steps": 4})) as runtime:
            model, optimizer, loader = runtime.prepare(*model_and_loader(batch_size=2))
            synced = []
            for batch in runtime.steps(loader, total=3):
                synced.append(runtime.sync_gradients)
                if way == "none":
                    learn(runtime, model, optimizer, batch)
                else:
                    with runtime.accumulate(*([model] if way == "of a model" else [])):
                        learn(runtime, model, optimizer, batch)
            assert synced == [False, False, False, True] * 3
            results.append(weights(runtime, model))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("bad", [2, 3, 11])
def test_a_micro_batch_that_is_left_out_does_not_count(tmp_path: Path, bad: int) -> None:
    """Six steps are six, and a life that is stopped and resumed sees the same samples."""

    def life(directory: Path, stop: int, seen: list[int]) -> None:
        with Runtime(config(directory, strategy={"accumulation_steps": 2})) as runtime:
            layer = nn.Linear(1, 1)
            loader = DataLoader(TensorDataset(torch.arange(40.0)[:, None]), batch_size=1)
            model, optimizer, loader = runtime.prepare(layer, torch.optim.SGD(layer.parameters(), 0.0), loader)
            for (x,) in runtime.steps(loader, total=6):
                seen.append(int(x))
                if int(x) == bad:
                    continue
                runtime.backward(model(x).mean())
                optimizer.step()
                if runtime.sync_gradients and runtime.step == stop:
                    os.kill(os.getpid(), signal.SIGTERM)
            assert runtime.step == 6

    whole: list[int] = []
    life(tmp_path / "whole", 0, whole)
    assert whole == list(range(13))
    parts: list[int] = []
    with pytest.raises(SystemExit, match="75"):
        life(tmp_path / "parts", 3, parts)
    stop_requests().cause = StopCause.NONE
    life(tmp_path / "parts", 0, parts)
    assert parts == whole


def test_loops_with_names_have_positions_of_their_own(tmp_path: Path) -> None:
    def life(directory: Path, stop: int, seen: list[tuple[str, int, float]]) -> None:
        with Runtime(config(directory)) as runtime:
            model, optimizer, first = runtime.prepare(*model_and_loader(shuffle=True))
            second = runtime.prepare(DataLoader(Points(), 8))
            for name, loader, total in (("pretrain", first, 4), ("finetune", second, 3)):
                for batch in runtime.steps(loader, total=total, name=name):
                    seen.append((name, runtime.step, float(batch[0].sum())))
                    learn(runtime, model, optimizer, batch)
                    runtime.log(size=len(batch[0]))
                    if runtime.step == stop:
                        os.kill(os.getpid(), signal.SIGTERM)

    whole: list[tuple[str, int, float]] = []
    life(tmp_path / "whole", 0, whole)
    assert [(name, step) for name, step, _ in whole] == [
        *(("pretrain", step) for step in (1, 2, 3, 4)),
        *(("finetune", step) for step in (5, 6, 7)),
    ]
    parts: list[tuple[str, int, float]] = []
    for stop in (2, 5, 6):
        with pytest.raises(SystemExit, match="75"):
            life(tmp_path / "parts", stop, parts)
        stop_requests().cause = StopCause.NONE
        in_another_process()
    life(tmp_path / "parts", 0, parts)
    assert parts == whole
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


def test_a_second_loop_without_a_name_is_refused_where_it_begins(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        first, second = runtime.prepare(DataLoader(Points(), 4), DataLoader(Points(), 8))
        assert len(list(runtime.steps(first, total=3))) == 3
        with pytest.raises(ConfigurationError, match="two loaders are called main: add name="):
            runtime.steps(second, total=3)
        with pytest.raises(ConfigurationError, match="has come to its end there in this very process"):
            next(runtime.steps(first, total=3))


def test_a_loop_inside_a_loop_is_refused(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        first, second = runtime.prepare(DataLoader(Points(), 4), DataLoader(Points(), 8))
        with pytest.raises(ConfigurationError, match="The loop main must end before another one begins, but inner was"):
            for _ in runtime.steps(first, total=3):
                next(runtime.steps(second, total=3, name="inner"))


def test_folds_have_a_runtime_each(tmp_path: Path) -> None:
    taken = []
    for fold in range(3):
        with Runtime(config(tmp_path), name=f"fold_{fold}") as runtime:
            model, optimizer, loader = runtime.prepare(*model_and_loader())
            taken.append([learn(runtime, model, optimizer, batch) for batch in runtime.steps(loader, total=5)])
    assert [len(losses) for losses in taken] == [5, 5, 5]
    assert saved(tmp_path / "fold_2") == 5


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "/abs", "checkpoints"])
def test_the_name_of_a_fold_is_that_of_a_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="name must be that of a new directory below run_dir"):
        Runtime(config(tmp_path), name=name)


def test_what_is_trained_is_prepared_before_the_first_loop(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        model, _, loader = model_and_loader()
        loader = runtime.prepare(loader)
        list(runtime.steps(loader, total=2))
        with pytest.raises(ConfigurationError, match="must be prepared before the first loop"):
            runtime.prepare(model)
        runtime.prepare(DataLoader(Points(), 8))


def test_a_loop_of_ones_own_has_everything(tmp_path: Path) -> None:
    """Resumed, saved at its end and when asked to, stopped by a signal; with steps of two micro-batches."""

    def life(directory: Path, total: int, stop: int = 0) -> torch.Tensor:
        settings = config(directory, strategy={"accumulation_steps": 2}, checkpoint={"every_steps": 100})
        with Runtime(settings) as runtime:
            layer = nn.Linear(2, 1)
            model, optimizer = runtime.prepare(layer, torch.optim.Adam(layer.parameters(), 0.1))
            for _ in range(runtime.resume(), total):
                for _ in range(2):
                    with runtime.accumulate(model):
                        runtime.backward(model(torch.randn(3, 2)).square().mean())
                        runtime.clip_grad_norm_(model.parameters(), 1.0)
                        optimizer.step()
                        optimizer.zero_grad()
                runtime.log(kept=runtime.step)
                if runtime.step == 2:
                    runtime.save()
                if runtime.step == stop:
                    os.kill(os.getpid(), signal.SIGTERM)
                if not runtime.end_step():
                    break
            return weights(runtime, model)

    whole = life(tmp_path / "whole", 6)
    with pytest.raises(SystemExit, match="75"):
        life(tmp_path / "parts", 6, stop=3)
    stop_requests().cause = StopCause.NONE
    assert torch.equal(life(tmp_path / "parts", 6), whole)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole") == [{"step": n, "kept": n} for n in range(1, 7)]
    assert [each.step for each in CheckpointStore(tmp_path / "whole" / "checkpoints").list()] == [6, 2]


def test_end_step_has_no_place_in_a_loop_over_steps(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        loader = runtime.prepare(DataLoader(Points(), 4))
        with pytest.raises(ConfigurationError, match=r"runtime.end_step is for a loop of one's own"):
            for _ in runtime.steps(loader, total=3):
                runtime.end_step()


def test_a_plain_loop_is_told_once_what_it_does_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Runtime(config(tmp_path)) as runtime:
        model, optimizer, loader = runtime.prepare(*model_and_loader())
        for _, batch in zip(range(4), loader, strict=False):
            learn(runtime, model, optimizer, batch)
    assert capsys.readouterr().err.count("trains outside of runtime.steps and runtime.epochs") == 1


def test_a_closure_trains_as_with_torch_alone_and_resumes(tmp_path: Path) -> None:
    points = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))

    def life(directory: Path, total: int) -> torch.Tensor:
        with Runtime(config(directory)) as runtime:
            layer = nn.Linear(2, 1)
            optimizer = torch.optim.LBFGS(layer.parameters(), lr=0.5, max_iter=4)
            model, optimizer, loader = runtime.prepare(layer, optimizer, DataLoader(TensorDataset(points), 4))
            for (x,) in runtime.steps(loader, total=total):
                optimizer.step(closure_of(model, optimizer, x, runtime.backward))
            return weights(runtime, model)

    def closure_of(model: Any, optimizer: Any, x: torch.Tensor, backward: Any) -> Callable[[], torch.Tensor]:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss: torch.Tensor = (model(x) - x.sum(1, keepdim=True)).square().mean()
            backward(loss)
            return loss

        return closure

    whole = life(tmp_path / "whole", 6)
    life(tmp_path / "parts", 3)
    in_another_process()
    assert torch.equal(life(tmp_path / "parts", 6), whole)
    torch.manual_seed(0)
    layer = nn.Linear(2, 1)
    optimizer: Any = torch.optim.LBFGS(layer.parameters(), lr=0.5, max_iter=4)
    for step in range(6):
        x = points[step % 2 * 4 :][:4]
        optimizer.step(closure_of(layer, optimizer, x, torch.Tensor.backward))
    assert torch.equal(torch.cat([each.detach().flatten() for each in layer.parameters()]), whole)


def test_a_closure_cannot_be_accumulated(tmp_path: Path) -> None:
    with Runtime(config(tmp_path, strategy={"accumulation_steps": 2})) as runtime:
        _, optimizer = runtime.prepare(*model_and_loader()[:2])
        with pytest.raises(ConfigurationError, match=r"optimizer.step\(closure\) needs strategy.accumulation_steps=1"):
            optimizer.step(lambda: torch.zeros(()))


def test_a_prepared_optimizer_is_an_optimizer(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        model, mine, loader = model_and_loader()
        model, optimizer, loader = runtime.prepare(model, mine, loader)
        assert isinstance(optimizer, torch.optim.Optimizer)
        assert optimizer.param_groups is mine.param_groups
        assert optimizer.state is mine.state
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
        assert len(mine.param_groups) == 2
        for other in (copy.copy(optimizer), copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
            assert other.param_groups[0]["lr"] == 0.1
            assert isinstance(other, type(optimizer))


def test_what_is_prepared_looks_like_what_it_wraps(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        mine: Any = model_and_loader()[1]
        plateau: Any = ReduceLROnPlateau(mine)
        optimizer, scheduler = runtime.prepare(mine, plateau)
        assert isinstance(optimizer, type(mine))
        assert isinstance(scheduler, ReduceLROnPlateau)
        mine.smoothing = 1
        optimizer.smoothing, scheduler.patience, scheduler.mine = 2, 3, 4  # type: ignore[attr-defined]
        assert (vars(mine)["smoothing"], plateau.patience, vars(plateau).get("mine")) == (2, 3, None)
        for other in (copy.copy(scheduler), copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
            assert other.state_dict() == plateau.state_dict()
            assert isinstance(other, ReduceLROnPlateau)


def test_what_was_prepared_before_is_returned_again(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        things = (*model_and_loader()[:2], nn.Linear(2, 2))
        first = runtime.prepare(*things)
        again = runtime.prepare(*things, *first, things[0])
        assert all(one is other for one, other in zip(again, (*first, *first, first[0]), strict=True))
        assert (len(runtime.training_state.models), len(runtime.training_state.optimizers)) == (2, 1)


@pytest.mark.parametrize("accumulates", [True, False])
def test_gradients_that_a_resumed_run_would_not_have_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], accumulates: bool
) -> None:
    with Runtime(config(tmp_path)) as runtime:
        model, optimizer, loader = runtime.prepare(*model_and_loader())
        for points, _ in runtime.steps(loader, total=4):
            runtime.backward(model(points).mean())
            if runtime.step % 2 == 0:
                optimizer.step()
            if runtime.step % 2 == 0 or not accumulates:  # a step that was left out leaves nothing
                optimizer.zero_grad()
    assert capsys.readouterr().err.count("step 1 has left gradients that no optimizer has used") == accumulates


@pytest.mark.parametrize("late", [False, True])
def test_a_scheduler_that_nobody_would_save_is_refused(tmp_path: Path, late: bool) -> None:
    words = r"one was built on the SGD and not: scheduler = runtime\.prepare"
    with pytest.raises(ConfigurationError, match=words), Runtime(config(tmp_path)) as runtime:
        model, mine, loader = model_and_loader()
        schedulers = [] if late else [LambdaLR(mine, lambda _: 1.0)]
        model, optimizer, loader = runtime.prepare(model, mine, loader)
        for batch in runtime.steps(loader, total=2):
            schedulers = schedulers or [LambdaLR(optimizer, lambda _: 1.0)]
            learn(runtime, model, optimizer, batch)


def test_a_scheduler_of_a_prepared_optimizer_is_prepared_or_refused(tmp_path: Path) -> None:
    for is_prepared in (True, False):
        with Runtime(config(tmp_path / str(is_prepared), strategy={"accumulation_steps": 2})) as runtime:
            model, optimizer, loader = runtime.prepare(*model_and_loader())
            scheduler: Any = LambdaLR(optimizer, lambda step: 0.5**step)
            if not is_prepared:
                with pytest.raises(ConfigurationError, match=r"scheduler = runtime\.prepare"):
                    next(runtime.steps(loader, total=3))
                continue
            scheduler = runtime.prepare(scheduler)
            for batch in runtime.steps(loader, total=3):
                learn(runtime, model, optimizer, batch)
                scheduler.step()
            assert optimizer.param_groups[0]["lr"] == 0.1 * 0.5**3


@pytest.mark.parametrize(
    "arguments", [(1.0,), (), ("parameters",), ("parameters", 1.0), ("parameters", 1.0, 2), ("parameters", 1.0, 1.0)]
)
def test_clipping_takes_accelerates_words_too(tmp_path: Path, arguments: tuple[Any, ...]) -> None:
    with Runtime(config(tmp_path)) as runtime:
        model, _, _ = model_and_loader()
        model = runtime.prepare(model)
        runtime.backward(model(torch.ones(1, 16)).sum() * 100)
        given = tuple(model.parameters() if each == "parameters" else each for each in arguments)
        if len(arguments) in (0,) or arguments in (("parameters",), ("parameters", 1.0, 1.0)):
            with pytest.raises(ConfigurationError, match="clip_grad_norm_"):
                runtime.clip_grad_norm_(*given)
        else:
            runtime.clip_grad_norm_(*given)
            norm = torch.linalg.vector_norm(torch.cat([each.grad.flatten() for each in model.parameters()]))
            torch.testing.assert_close(norm, torch.tensor(1.0))


@pytest.mark.parametrize("micro_batch", [0, 1])
def test_a_loss_that_is_no_number_ends_the_run_without_being_logged(tmp_path: Path, micro_batch: int) -> None:
    settings = config(tmp_path, strategy={"accumulation_steps": 2}, checkpoint={"every_steps": 2})
    with (
        pytest.raises(DivergedError, match="loss must stay finite, but is nan at step 4"),
        Runtime(settings) as runtime,
    ):
        model, optimizer, loader = runtime.prepare(*model_and_loader())
        for number, (points, classes) in enumerate(runtime.steps(loader, total=10)):
            loss = nn.functional.cross_entropy(model(points), classes)
            runtime.backward(loss * math.nan if number == 6 + micro_batch else loss)
            optimizer.step()
            optimizer.zero_grad()
    assert saved(tmp_path) == 2


def test_a_norm_that_is_infinite_ends_the_run_too(tmp_path: Path) -> None:
    refused = pytest.raises(DivergedError, match="grad_norm must stay finite, but is inf at step 3")
    with refused, Runtime(config(tmp_path)) as runtime:
        layer = nn.Linear(1, 1, bias=False)
        model, optimizer, loader = runtime.prepare(
            layer, torch.optim.SGD(layer.parameters(), 0.1), DataLoader(TensorDataset(torch.ones(8, 1)), 1)
        )
        for (x,) in runtime.steps(loader, total=9):
            runtime.backward((model(x) * (1e38 if runtime.step == 3 else 1.0)).sum() * 0.5 + model(x).sum() * 3e38)
            runtime.clip_grad_norm_(1.0)
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.gloo
def test_two_ranks_end_alike_and_commit_nothing_that_one_of_them_cannot_trust(tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *torchrun, "-m", "tests.programs.boundaries", str(tmp_path)],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert answers["all ranks stop"] == [7, 7]
    taken, committed = answers["one rank stops"]
    assert 7 <= taken == committed < 100_000
    (code, text), committed = answers["nan at a save"]
    assert (code, committed) == (79, 3)
    assert "loss must stay finite, but is nan at step 6 on rank 1" in text
    (code, text), committed = answers["left out on one rank"]
    assert (code, committed) == (80, 2)
    assert "must hold the same number of samples in the loop main, but at step 4 it is" in text
    (code, text), committed = answers["nan in an inner micro-batch"]
    assert (code, committed) == (79, None)
    assert "is nan at step 5 on rank 1" in text
