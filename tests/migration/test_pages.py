"""The loops on the pages for people who come from elsewhere: run as they stand, beside those they were ported from."""

from __future__ import annotations

import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LinearLR
from torch.utils.data import DataLoader, TensorDataset

from tests.conftest import ROOT

datasets = pytest.importorskip("sklearn.datasets")
SAMPLES = 64


def scripts(page: str) -> list[str]:
    """What came before, and what is written here."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def train(script: str, build: Any, cfg: dict[str, Any]) -> dict[str, torch.Tensor]:
    names: dict[str, Any] = {
        "build": build, "cross_entropy": cross_entropy, "torch": torch, "DataLoader": DataLoader, "LinearLR": LinearLR,
    }  # fmt: skip
    exec(script, names)
    state: dict[str, torch.Tensor] = names["train"](cfg).state_dict()
    return state


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = datasets.load_digits(return_X_y=True)
    return torch.tensor(images[:SAMPLES] / 16, dtype=torch.float32), torch.tensor(labels[:SAMPLES])


def config(directory: Path) -> dict[str, Any]:
    return {
        "run_dir": str(directory), "runtime": {"device": "cpu", "trackers": []}, "epochs": 3, "batch_size": SAMPLES,
    }  # fmt: skip


def test_the_loop_for_people_from_fabric(tmp_path: Path) -> None:
    def build(_: Any) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
        torch.manual_seed(0)
        model = nn.Linear(64, 10)
        return model, torch.optim.AdamW(model.parameters(), 0.01), DataLoader(TensorDataset(*digits()), 8)

    before, here = scripts("from-lightning.md")
    cfg = {**config(tmp_path), "strategy": {"accumulation_steps": 2}, "accumulation_steps": 2}
    ours, fresh = train(here, build, cfg), build(cfg)[0].state_dict()
    assert not torch.allclose(ours["weight"], fresh["weight"], atol=1e-2)
    if importlib.util.find_spec("lightning_fabric"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Fabric would rather be started by srun where it sees one
            theirs = train(before, build, cfg)
        torch.testing.assert_close(ours, theirs)


class Classifier(nn.Module):
    """As those of transformers: it takes the batch by name and gives the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.layer(inputs)
        return {"loss": cross_entropy(logits, labels), "logits": logits}


def test_the_loop_for_people_from_the_trainer(tmp_path: Path) -> None:
    """The batch is the whole data set, because the two shuffle differently."""

    def build(_: Any) -> tuple[nn.Module, list[Any]]:
        torch.manual_seed(0)
        return Classifier(), [{"inputs": x, "labels": y} for x, y in zip(*digits(), strict=True)]

    before, here = scripts("from-transformers.md")
    ours, fresh = train(here, build, config(tmp_path / "ours")), build({})[0].state_dict()
    assert not torch.allclose(ours["layer.weight"], fresh["layer.weight"], atol=1e-2)
    pytest.importorskip("transformers")
    theirs = train(before, build, config(tmp_path / "theirs"))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
