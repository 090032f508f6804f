"""A whole run on a machine that is full of other people: what they can write, what they can read, what they can ask."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.config.bad_input import CONFIG
from tests.conftest import clean_environment

JOB = """
import os
import torch
from hydra.core.hydra_config import HydraConfig
from hpc import Runtime

def train(cfg):
    runtime = Runtime(cfg)
    model, optimizer = torch.nn.Linear(1, 1), None
    model, optimizer = runtime.prepare(model, torch.optim.SGD(model.parameters(), 0.1))
    loader = runtime.prepare(torch.utils.data.DataLoader(torch.arange(32.0).unsqueeze(1), 4))
    for batch in runtime.steps(loader, total=3):
        loss = model(batch).mean()
        runtime.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        runtime.log(loss=loss)
    return {
        "config": cfg.api.token == "tok3n-value",
        "environment": (os.environ["X_API_KEY"], os.environ["PLAIN"]) == ("very-secret", "plain text"),
        "hydra": any("very-secret" in override for override in HydraConfig.get().overrides.task),
    }
"""
SECRETS = (b"very-secret", b"plain text", b"tok3n-value")
COMMAND = (
    *("run", "--config-path", "conf", "-m", "run_dir=out", "cluster=local", "hardware=laptop", "runtime.device=cpu"),
    *("+cluster.environment={X_API_KEY:very-secret,PLAIN:plain text}", "runtime.trackers=[tensorboard,csv]"),
    "runtime.profile.start_step=1",
)
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
is_root = os.geteuid() == 0 and shutil.which("setpriv") is not None


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A run that was made by somebody whose umask keeps nobody from anything."""
    with tempfile.TemporaryDirectory(prefix="hpc-test-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "conf").mkdir()
        (directory / "conf" / "config.yaml").write_text(f"{CONFIG}api: {{token: tok3n-value}}\n")
        (directory / "job.py").write_text(JOB)
        done = subprocess.run(
            [sys.executable, "-m", "hpc", *COMMAND], cwd=directory, env=clean_environment(), umask=0, timeout=300,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert not any(secret in (done.stdout + done.stderr).encode() for secret in SECRETS)
        yield directory


def reachable(directory: Path) -> list[Path]:
    """Everything in a run directory but what lies in a directory that is closed to others."""
    closed = [path for path in directory.rglob("*") if path.is_dir() and not path.stat().st_mode & 0o077]
    return [path for path in directory.rglob("*") if not any(path.is_relative_to(each) for each in closed)]


def test_secrets_reach_the_training_function(place: Path) -> None:
    result = json.loads((place / "out/0/finished.json").read_text())
    assert result == {"value": {"config": True, "environment": True, "hydra": True}}


def test_nobody_else_can_write_any_of_it(place: Path) -> None:
    paths = reachable(place / "out")
    names = {path.name for path in paths}
    assert {
        "journal",
        "logs",
        "checkpoints",
        "metrics.jsonl",
        "metrics.csv",
        "tensorboard",
        "profile",
        "rank_0.json.gz",
    } < names
    assert [path for path in paths if path.stat().st_mode & 0o022] == []


def test_no_file_that_others_can_read_holds_a_secret(place: Path) -> None:
    readable = [path for path in reachable(place / "out") if path.is_file() and path.stat().st_mode & 0o077]
    assert len(readable) > 10
    assert [path for path in readable if any(secret in path.read_bytes() for secret in SECRETS)] == []


@pytest.mark.skipif(not is_root, reason="a second user can be had by root only, with setpriv")
def test_a_colleague_may_look(place: Path) -> None:
    command = [*NOBODY, sys.executable, "-m", "hpc", "checkpoint", "ls", str(place / "out")]
    environ = clean_environment(PYTHONDONTWRITEBYTECODE="1", HOME="/")
    done = subprocess.run(command, cwd="/", env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "loss" in done.stdout
