"""A line from Accelerate means the same here, or is refused where it stands."""

from __future__ import annotations

import copy
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hpc import Runtime
from hpc.errors import ConfigurationError
from hpc.runtime.accelerate import INSTEAD, ElsewhereError
from tests.conftest import ROOT, clean_environment

accelerate = pytest.importorskip("accelerate")


def config(directory: Path, **sections: Any) -> dict[str, Any]:
    return {"run_dir": str(directory), "runtime": {"device": "cpu", "trackers": []}, **sections}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(config(tmp_path))


def names_of_accelerate() -> set[str]:
    """Of the class and of its objects."""
    accelerator = accelerate.Accelerator(cpu=True)
    return {name for name in (*dir(accelerate.Accelerator), *vars(accelerator)) if not name.startswith("_")}


def test_no_name_of_accelerate_is_left_without_an_answer(runtime: Runtime) -> None:
    unanswered = [
        name for name in sorted(names_of_accelerate()) if name not in INSTEAD and not hasattr(type(runtime), name)
        and name not in vars(runtime)
    ]  # fmt: skip
    assert unanswered == []


def test_the_table_holds_names_of_accelerate_that_a_runtime_has_not(runtime: Runtime) -> None:
    assert [name for name in INSTEAD if hasattr(runtime, name)] == []
    newest = names_of_accelerate()
    assert {"save_state", "profile", "state"} < {*INSTEAD} & newest


@pytest.mark.parametrize("name", INSTEAD)
def test_what_is_elsewhere_is_one_sentence(runtime: Runtime, name: str) -> None:
    with pytest.raises(ElsewhereError, match=f"^A Runtime has no {name}, which Accelerate has, because .*: .*[^.]\\.$"):
        getattr(runtime, name)
    assert not hasattr(runtime, name)
    assert getattr(runtime, name, None) is None
    assert ElsewhereError.exit_code == 78


def test_what_nobody_has_is_missing_as_usual(runtime: Runtime) -> None:
    with pytest.raises(AttributeError, match="'Runtime' object has no attribute 'stepps'"):
        runtime.stepps  # type: ignore[attr-defined]  # noqa: B018
    assert copy.copy(runtime).world is runtime.world


def test_signatures_take_what_accelerates_take(runtime: Runtime) -> None:
    """Every argument that a call of Accelerate's may have, by place and by name, has one here."""
    others = {"log": {"log_kwargs"}, "gather": {"tensor"}, "gather_for_metrics": {"input_data"}}  # refused, or by place
    for name in sorted(names_of_accelerate()):
        theirs = getattr(accelerate.Accelerator, name, None)
        ours = inspect.getattr_static(type(runtime), name, None)
        if not inspect.isfunction(theirs) or ours is None:
            continue
        mine = inspect.signature(getattr(runtime, name)).parameters
        takes_any = {each.kind for each in mine.values()} & {inspect.Parameter.VAR_KEYWORD}
        theirs_named = [
            each.name for each in list(inspect.signature(theirs).parameters.values())[1:]
            if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ]  # fmt: skip
        missing = {*theirs_named} - {*mine} - others.get(name, set())
        assert takes_any or not missing, (name, missing)


REFUSALS: dict[str, tuple[Callable[[Runtime], Any], str]] = {
    "save": (lambda r: r.save({"a": 1}, "file", safe_serialization=True), "saves the run and takes nothing"),
    "save by name": (lambda r: r.save(obj=1, f="file"), "but got obj, f"),
    "autocast": (lambda r: r.autocast(accelerate.utils.AutocastKwargs()), "got a AutocastKwargs"),
    "placement": (
        lambda r: r.prepare(nn.Linear(1, 1), device_placement=[True]),  # type: ignore[arg-type]
        r"got device_placement=\[True\]",
    ),
    "prepare nothing": (lambda r: r.prepare(), "at least one"),
    "reduce none": (lambda r: r.reduce(torch.ones(1), "none"), "takes reduction=sum, mean, max"),
    "reduce scaled": (lambda r: r.reduce(torch.ones(1), scale=0.5), "and 0.5"),
    "reduce number": (lambda r: r.reduce(1.5), "takes tensors, but got 1.5"),
    "mean of integers": (lambda r: r.reduce({"n": torch.ones(1).long()}, "mean"), "of fractions, but got torch.int64"),
    "pad words": (lambda r: r.pad_across_processes(["a"]), "takes tensors, but got 'a'"),
    "no such rank": (lambda r: r.on_process(print, process_index=1), "must be one of 0 to 0, but is 1"),
    "no rank": (lambda r: r.on_local_process(print), "but is None"),
    "unwrap": (lambda r: r.unwrap_model(nn.Linear(1, 1), keep_fp32_wrapper=False), "save its state dict"),
    "names of the wrapper": (lambda r: r.get_state_dict(nn.Linear(1, 1), unwrap=False), "got unwrap=False"),
    "clip value": (lambda r: r.clip_grad_value_([torch.ones(1)], None), "but got None"),  # type: ignore[arg-type]
    "clip below 0": (lambda r: r.clip_grad_value_([torch.ones(1)], -1.0), "not negative, but got -1.0"),
    "accumulation": (lambda r: setattr(r, "gradient_accumulation_steps", 4), "strategy.accumulation_steps=4"),
    "objects": (lambda r: r.gather_for_metrics([torch.ones(1)], use_gather_object=True), "got a list of tensors"),
    "log": (lambda r: r.log({"a": 1.0}, log_kwargs={"wandb": {}}), "runtime.log"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_an_argument_that_cannot_mean_the_same_is_refused(runtime: Runtime, case: str) -> None:
    call, words = REFUSALS[case]
    with pytest.raises(ConfigurationError, match=words):
        call(runtime)


def test_in_a_world_of_one(tmp_path: Path) -> None:
    with Runtime(config(tmp_path, strategy={"precision": "bf16", "accumulation_steps": 2})) as runtime:
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        accelerator.sync_gradients  # noqa: B018
        layer = nn.Linear(1, 1)
        model = runtime.prepare(layer)
        for here in (runtime, accelerator):
            assert here.is_last_process
            assert here.is_local_main_process
            assert here.gradient_accumulation_steps == 2
            assert here.reduce(torch.tensor([1, 2])).tolist() == [1, 2]
            with here.split_between_processes([1, 2]) as mine:
                assert mine == [1, 2]
            assert here.on_main_process(lambda: "ran")() == "ran"
            with here.main_process_first(), here.local_main_process_first():
                pass
            assert not here.optimizer_step_was_skipped
            assert not here.check_trigger()
        assert runtime.mixed_precision == "bf16"
        assert runtime.unwrap_model(model) is layer
        assert sorted(runtime.get_state_dict(model)) == ["bias", "weight"]
        assert runtime.gather_for_metrics(["a"], use_gather_object=True) == ["a"]
        runtime.end_training()


def test_no_sync_has_no_place_in_a_loop_over_steps(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        layer = nn.Linear(1, 1)
        samples: Any = torch.ones(8, 1)
        model, loader = runtime.prepare(layer, torch.utils.data.DataLoader(samples, 2))
        with pytest.raises(ConfigurationError, match="no_sync is for a loop of one's own"):
            for _ in runtime.steps(loader, total=2):
                with runtime.no_sync(model):
                    pass


def expected_weights() -> dict[str, Any]:
    """Of both ranks' gradients, averaged and clipped by hand."""
    torch.manual_seed(3)
    layer = nn.Linear(3, 2)
    for rank in (0, 1):
        x = torch.arange(6.0).reshape(2, 3) + rank
        (layer(x).square().mean() / 2).backward()
        (layer(x + 1).square().mean() / 2).backward()
    nn.utils.clip_grad_value_(layer.parameters(), 2.0)
    torch.optim.SGD(layer.parameters(), 0.1).step()
    return layer.state_dict()


@pytest.mark.gloo
def test_two_ranks_are_told_what_accelerate_tells_them(tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *torchrun, "-m", "tests.migration.two_ranks", str(tmp_path)],
        cwd=ROOT, env=clean_environment(ACCELERATE_USE_CPU="true"), capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert answers["hpc"] == answers["accelerate"]
    assert answers["order"] == ["0", "1"]
    assert answers["refused"][0] == answers["refused"][1]
    assert "rank 0 has shape (1, 2)" in answers["refused"][0]["unlike shapes"]
    assert "as many dimensions on all ranks" in answers["refused"][0]["unlike dimensions"]
    for strategy in ("ddp", "fsdp"):
        for name, value in expected_weights().items():
            torch.testing.assert_close(torch.tensor(answers[strategy][name]), value)
