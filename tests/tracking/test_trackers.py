"""Curves go where they were asked to, and on with the same run after a requeue."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from hpc import Runtime
from hpc.errors import ConfigurationError
from hpc.tracking.trackers import Csv, TrackedRun, make_trackers
from tests.conftest import clean_environment
from tests.programs.jobs import Points

SECRET = "tok3n-of-mine"


def holding_the_secret(directory: Path) -> list[Path]:
    """Files in which a tracker has kept what is nobody's to know."""
    return [path for path in directory.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def life(directory: Path, total: int, names: list[str], own: Sequence[Kept] = ()) -> None:
    """Train from wherever the run is to step `total`; what is logged is the step."""
    runtime_options = {"device": "cpu", "trackers": names, "log_every_steps": 10**6}
    config = {"run_dir": str(directory), "runtime": runtime_options, "experiment": {"name": "curves"}, "lr": 0.5}
    config["api"] = {"token": SECRET}
    with Runtime(config, trackers=own) as runtime:
        for _ in runtime.steps(runtime.prepare(DataLoader(Points(), 4)), total=total):
            runtime.log(value=runtime.step)


class Kept:
    """A tracker of the user's own."""

    said: ClassVar[list[Any]] = []

    def open(self, run: TrackedRun) -> None:
        self.said.append(
            ("open", run.name, run.step, run.config["lr"], run.remembered("kept", lambda: f"id{run.step}"))
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.said.append((step, values["value"], sorted(values)))

    def close(self) -> None:
        self.said.append("close")


@pytest.mark.parametrize("way", ["by import path", "as an object"])
def test_a_tracker_of_ones_own_sees_every_life(tmp_path: Path, way: str) -> None:
    Kept.said.clear()
    for total in (3, 5):
        if way == "as an object":
            life(tmp_path, total, [], [Kept()])
        else:
            life(tmp_path, total, [f"{__name__}.Kept"])
    names = ["host_memory_gb", "samples_per_second", "value"]
    assert Kept.said == [
        ("open", "curves", 0, 0.5, "id0"), (3, 3.0, names), "close",
        ("open", "curves", 3, 0.5, "id0"), (5, 5.0, names), "close",
    ]  # fmt: skip


class Broken(Kept):
    def log(self, values: Mapping[str, float], step: int) -> None:
        raise ConnectionError(f"no route to the server for {values} of step {step}")


def test_a_tracker_that_fails_is_left_out_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    life(tmp_path, 3, [f"{__name__}.Broken", "csv"])
    said = capsys.readouterr().err
    assert "hpc: Broken failed to log; training goes on without it (ConnectionError: no route to the server" in said
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 2


def test_tensorboard_continues(tmp_path: Path) -> None:
    for total in (3, 5):
        life(tmp_path, total, ["tensorboard"])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("value")] == [(3, 3.0), (5, 5.0)]
    assert "samples_per_second" in events.Tags()["scalars"]


def run_at(directory: Path, step: int) -> TrackedRun:
    return TrackedRun(directory, "curves", {}, step)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"wandb": 7}', b"\xff", b"[" * 100_000])
def test_ids_that_cannot_be_read_are_made_anew_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "trackers.json").write_bytes(content)
    assert run_at(tmp_path, 3).remembered("wandb", lambda: "new") == "new"
    assert "trackers.json must say under which ids trackers know this run" in capsys.readouterr().err
    assert run_at(tmp_path, 4).remembered("wandb", lambda: "newer") == "new"


def test_csv_drops_what_is_trained_again_and_takes_new_columns(tmp_path: Path) -> None:
    for start, rows in ((0, [(1, {"loss": 3.0}), (2, {"loss": 2.0, "held_out": 4.0})]), (1, [(2, {"loss": 2.5})])):
        tracker = Csv()
        tracker.open(run_at(tmp_path, start))
        for step, values in rows:
            tracker.log(values, step)
        tracker.close()
    with (tmp_path / "metrics.csv").open() as file:
        assert list(csv.reader(file)) == [["step", "loss", "held_out"], ["1", "3.0", ""], ["2", "2.5", ""]]


def test_mlflow_goes_on_with_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for total in (3, 5):
        life(tmp_path, total, ["mlflow"])
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'curves'")
    (run,) = client.search_runs([experiment.experiment_id])
    history = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "value")]
    assert history == [(3, 3.0), (5, 5.0)]
    assert (run.data.params["lr"], run.info.status) == ("0.5", "FINISHED")
    assert run.data.params["api.token"] == "***"
    assert holding_the_secret(tmp_path) == []


WANDB_LIVES = """
import sys
from pathlib import Path
from tests.tracking.test_trackers import life
for total in (3, 5):
    life(Path(sys.argv[1]), total, ["wandb"])
"""
WANDB_RECORDS = """
import json, struct, sys
from pathlib import Path
from wandb.proto.wandb_internal_pb2 import Record

def records(data):  # a LevelDB log behind a header of 7 bytes: blocks of 32 KiB, pieces of records in them
    offset, whole = 7, b""
    while offset + 7 <= len(data):
        if 32768 - offset % 32768 < 7:
            offset += 32768 - offset % 32768
        _, length, kind = struct.unpack_from("<IHB", data, offset)
        whole += data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):
            yield Record.FromString(whole)
            whole = b""

for path in sorted(Path(sys.argv[1]).glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
    ids, rows = set(), []
    for record in records(path.read_bytes()):
        if record.HasField("run"):
            ids.add(record.run.run_id)
        if record.HasField("history"):
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            rows.append((items["step"], items["value"]))
    print(json.dumps([*ids, rows]))
"""


def test_wandb_offline_goes_on_under_the_same_id(tmp_path: Path) -> None:
    """In processes of their own: wandb starts a service, and leaves files open that this session warns of."""
    environment = clean_environment(WANDB_MODE="offline")
    for program in (WANDB_LIVES, WANDB_RECORDS):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path), f"api.token={SECRET}"],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    run_id = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    lives = [json.loads(line) for line in done.stdout.splitlines()]  # those of one second share a folder
    assert {run_id} == {each for each, _ in lives}
    assert [row for _, rows in lives for row in rows] == [[3, 3.0], [5, 5.0]]
    assert holding_the_secret(tmp_path) == []  # nor has the command line, which W&B keeps


@pytest.mark.parametrize("name", ["nothing", "tests.tracking.test_trackers.Nothing", "nowhere.Tracker"])
def test_a_tracker_that_is_not_there_is_one_sentence(name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"must hold tensorboard, csv, wandb, mlflow .*, but {name} is neither"
    ):
        make_trackers([name])


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_whose_package_is_missing_says_the_pip_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # how Python says that there is no such package
    with pytest.raises(ConfigurationError, match=rf"not installed: pip install 'hpc\[{name}\]'"):
        make_trackers([name])
