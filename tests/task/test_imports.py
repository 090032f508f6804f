"""What a rank imports until it trains, and what happens around an import."""

from __future__ import annotations

import gc
import importlib
import inspect
import json
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from hpc.task.imports import afterwards, around_import, uncollected
from tests.conftest import Run

NEEDLESS = {
    "hpc.strategy.deepspeed", "hpc.strategy.fsdp", "hpc.submit.container", "hydra", "sympy", "torch._dynamo",
    "torch.distributed.fsdp", "torch.distributed.tensor", "torch.utils.tensorboard",
}  # fmt: skip


@pytest.mark.gloo
@pytest.mark.parametrize(("ranks", "strategy"), [(1, "Single"), (2, "DDP")])
def test_a_rank_imports_what_its_run_needs(run_py: Run, tmp_path: Path, ranks: int, strategy: str) -> None:
    done = run_py(
        "-m", "cluster=local", "hardware=cpu", "hardware.nodes=1", f"hardware.tasks_per_node={ranks}", "run_dir=out",
        "experiment.target=tests.programs.import_jobs.tell", f"+told={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in range(ranks):
        told = json.loads((tmp_path / f"{rank}.json").read_text())
        assert told["strategy"] == strategy
        assert sorted(NEEDLESS & {*told["imported"]}) == []
        assert told["hardware"] == "cpu"  # HydraConfig tells it as soon as it is imported
        assert told["collects"], "Python collects garbage again"
        assert told["kept"] > 10_000, "but does not look through torch's modules any more"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One that has not been imported, and tells whether garbage is collected meanwhile."""
    name = "surely_imported_once"
    (tmp_path / f"{name}.py").write_text("import gc\ncollects = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_an_import_is_found_once_and_its_module_is_whole(module: str) -> None:
    calls: list[str] = []
    finders = [*sys.meta_path]
    assert around_import(module, afterwards(lambda: calls.append(sys.modules[module].__name__)))
    assert calls == []
    whole = importlib.import_module(module)
    assert calls == [module]
    assert sys.meta_path == finders
    assert inspect.getsource(whole).startswith("import gc")
    assert not around_import(module, afterwards(lambda: calls.append("never")))
    assert calls == [module]


@pytest.mark.parametrize("is_on", [True, False])
def test_the_collector_is_left_as_it_was(module: str, is_on: bool) -> None:
    with ExitStack() as stack:
        stack.callback(gc.unfreeze)
        stack.callback(gc.enable if gc.isenabled() else gc.disable)
        (gc.enable if is_on else gc.disable)()
        around_import(module, uncollected())
        assert importlib.import_module(module).collects is False
        assert gc.isenabled() is is_on
