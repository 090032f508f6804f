"""The two scripts of docs/migration.md train the same model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, clean_environment

SCRIPTS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "migration.md").read_text(), re.DOTALL)

BOTH = """
import sys
import torch
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader
from tests.programs.jobs import Points

def build(cfg):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return model, optimizer, StepLR(optimizer, 3, 0.5), DataLoader(Points(), batch_size=10)

cfg = {"run_dir": "run", "runtime": {"device": "cpu"}, "strategy": {"accumulation_steps": 2},
       "accumulation_steps": 2, "epochs": 2}
models = []
for path in sys.argv[1:]:
    names = {"build": build, "cross_entropy": cross_entropy}
    exec(open(path).read(), names)
    models.append(names["train"](cfg).cpu().state_dict())
fresh, (first, second) = build(cfg)[0].state_dict(), models
print(all(torch.equal(first[name], second[name]) for name in first), torch.equal(first["0.weight"], fresh["0.weight"]))
"""


def test_both_scripts_end_with_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "both.py").write_text(BOTH)
    for number, script in enumerate(SCRIPTS):
        (tmp_path / f"{number}.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "both.py", "0.py", "1.py"],
        cwd=tmp_path, env=clean_environment(ACCELERATE_USE_CPU="true"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True False", done.stdout
