"""Nobody's code runs because it lies in a file of DeepSpeed's."""

from __future__ import annotations

import json
import subprocess
import sys
from http import HTTPMethod
from pathlib import Path
from typing import Any

import pytest
import torch

from hpc.checkpoint.archive import read_archive
from hpc.strategy.deepspeed_files import member
from tests.conftest import ROOT, clean_environment


def test_an_engine_goes_on_from_its_own_files_and_from_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.programs.trusted_engine", str(tmp_path)]
    environment = clean_environment(DS_ACCELERATOR="cpu")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("optim_states", "model_states"):
        code, said = found[name]
        assert code == 65
        assert f"{name}.pt is not like that: it holds " in said
        assert "\n" not in said
    assert found["went on after"] == 2
    assert found["numpy"][0] == 74
    assert "numpy" in found["numpy"][1]
    assert found["has run"] is False


class AsPython311WritesIt:
    def __init__(self, of: Any, name: str) -> None:
        self.of, self.name = of, name

    def __reduce__(self) -> Any:
        return getattr, (self.of, self.name)


@pytest.mark.parametrize(
    ("of", "name", "said"),
    [(HTTPMethod, "GET", ""), (HTTPMethod, "mro", "mro"), (torch.Size, "numel", "no enumeration")],
)
def test_a_member_of_an_enumeration_is_all_that_getattr_gives(tmp_path: Path, of: Any, name: str, said: str) -> None:
    torch.save({"stage": AsPython311WritesIt(of, name)}, tmp_path / "file.pt")
    classes: dict[str, Any] = {"http HTTPMethod": HTTPMethod, "__builtin__ getattr": member}
    with (tmp_path / "file.pt").open("rb") as file:
        if said:
            with pytest.raises(ValueError, match=said):
                read_archive(file, classes)
        else:
            assert read_archive(file, classes) == {"stage": HTTPMethod.GET}
