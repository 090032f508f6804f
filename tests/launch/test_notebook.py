"""Ranks started from a cell: what they return, print, raise, and that a real notebook can do it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from hpc import Runtime
from hpc.errors import HpcError
from hpc.launch.notebook import notebook_launcher
from tests.conftest import ROOT

pytestmark = pytest.mark.gloo


def fail_on_rank_1(directory: str) -> None:
    with Runtime({"run_dir": directory, "runtime": {"device": "cpu"}}) as runtime:
        if runtime.process_index == 1:
            raise ValueError("asked to fail")
        runtime.wait_for_everyone()


def test_a_failing_rank_is_named_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(HpcError, match=r"rank 1 of 2 failed first:\n(.|\n)*ValueError: asked to fail"):
        notebook_launcher(fail_on_rank_1, (str(tmp_path),), num_processes=2)


CELLS = (
    """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from hpc import Runtime, notebook_launcher

SLOPE = 3.0
""",
    """
def train(directory, steps):
    with Runtime({"run_dir": directory, "runtime": {"device": "cpu"}}) as runtime:
        x = torch.linspace(-1, 1, 64).reshape(-1, 1)
        model = nn.Linear(1, 1)
        loader = DataLoader(TensorDataset(x, SLOPE * x), batch_size=8, shuffle=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        model, optimizer, loader = runtime.prepare(model, optimizer, loader)
        for inputs, targets in runtime.steps(loader, total=steps):
            loss = nn.functional.mse_loss(model(inputs), targets)
            with runtime.accumulate():
                runtime.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        runtime.print_in_order(f"rank {runtime.process_index} of {runtime.num_processes}")
        return runtime.unwrap(model).weight.item()
""",
    "slope = notebook_launcher(train, (DIRECTORY, 60), num_processes=2)",
    "print(f'{slope:.2f}')",
)


def output(cell: Any) -> str:
    return "".join(each.get("text", "") for each in cell.outputs)


def test_a_notebook_trains_on_two_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    new: Any = nbformat.v4
    cells = [new.new_code_cell(source) for source in (f"DIRECTORY = {str(tmp_path / 'run')!r}", *CELLS)]
    notebook = new.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    assert "rank 0 of 2\nrank 1 of 2\n" in output(notebook.cells[-2])
    assert output(notebook.cells[-1]) == "3.00\n"
