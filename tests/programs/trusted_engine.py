"""DeepSpeed goes on from its own files, and from nothing else: each ending is a line of JSON on standard output."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import nn

from hpc import Runtime
from hpc.checkpoint.manifest import OPENING
from hpc.errors import HpcError

PROOF = "code of the file has run"


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path(PROOF),)


class Ones(torch.utils.data.Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.ones(4)


def train(directory: Path, total: int, lr: Any = 0.125) -> int:
    """Train with ZeRO 2 up to a step; returns the step it began after."""
    settings = {"run_dir": str(directory), "runtime": {"device": "cpu"}, "checkpoint": {"every_steps": 1000},
                "strategy": {"name": "deepspeed", "zero_stage": 2}}  # fmt: skip
    with Runtime(settings) as runtime:
        model = nn.Linear(4, 2)
        loader = torch.utils.data.DataLoader(Ones(), batch_size=1)
        model, optimizer, loader = runtime.prepare(model, torch.optim.AdamW(model.parameters(), lr=lr), loader)
        began = []
        for batch in runtime.steps(loader, total=total):
            began.append(runtime.step - 1)
            runtime.backward(model(batch).sum())
            optimizer.step()
            optimizer.zero_grad()
    return began[0]


def ending(action: Callable[[], object]) -> Any:
    try:
        return action()
    except HpcError as error:
        return [error.exit_code, str(error)]


def tamper(directory: Path, name: str, content: Any) -> None:
    """Put something else into a file of the engine's, with every checksum right."""
    (checkpoint,) = (directory / "checkpoints").glob("step_*")
    (path,) = checkpoint.glob(f"deepspeed/engine/*{name}*.pt")
    torch.save(content, path)
    fields = json.loads((checkpoint / "manifest.json").read_bytes())["checkpoint"]
    written = path.read_bytes()
    entry = fields["files"][str(path.relative_to(checkpoint))]
    entry |= {"bytes": len(written), "xxh3_128": xxhash.xxh3_128_hexdigest(written)}
    text = json.dumps(fields).encode()
    sealed = OPENING % xxhash.xxh3_128_hexdigest(text).encode() + text + b"}\n"
    (checkpoint / "manifest.json").write_bytes(sealed)


def main(root: Path) -> None:
    os.chdir(root)
    first = root / "first"
    train(first, 2)
    found: dict[str, Any] = {}
    for name, content in {"optim_states": Evil(), "model_states": {"module": {}, "more": [Evil()]}}.items():
        shutil.copytree(first, root / name)
        tamper(root / name, name, content)
        found[name] = ending(lambda name=name: train(root / name, 3))  # type: ignore[misc]
    found["went on after"] = ending(lambda: train(first, 3))
    found["numpy"] = ending(lambda: train(root / "numpy", 2, np.float64(0.125)))
    found["has run"] = Path(PROOF).exists()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
