"""The same loop in hpc, which `python run.py experiment.target=...with_hpc.train` submits."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from hpc import Runtime
from tests.programs.loops_of_others.problem import BATCH, Conditions, Net, Points, optimizer_of


def train(cfg: Any) -> float:
    """Train; `cfg.job` has the conditions of each point, by its seed."""
    with Runtime(cfg) as runtime:
        conditions = Conditions(**OmegaConf.to_container(cfg.job)[f"point_{cfg.seed}"])  # type: ignore[arg-type,index,call-overload]
        model = Net(conditions)
        loader = DataLoader(Points(), batch_size=BATCH, shuffle=True)
        prepared, optimizer, loader = runtime.prepare(model, optimizer_of(model), loader)
        for points, classes in runtime.steps(loader, total=cfg.steps):
            runtime.backward(prepared(points, classes))
            optimizer.step()
            optimizer.zero_grad()
            conditions.tell(runtime.process_index, runtime.step)
        if runtime.is_main_process:
            conditions.finish(model)
    return 0.0
