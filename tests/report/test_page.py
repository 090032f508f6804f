"""What the page of `hpc report` holds, and what is refused."""

from __future__ import annotations

import base64
import gzip
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from hpc.report.asked import asked, code_of
from hpc.report.causes import failures
from hpc.report.curves import MOST_PER_POINT, curves
from hpc.report.history import History, histories, split
from hpc.report.spans import HELD
from hpc.run.directory import RunDirectory
from hpc.run.stored import open_sweep
from hpc.status.sweep import look
from tests.conftest import FakeSlurm
from tests.support.reported import BEGAN, REASON, reported_sweep
from tests.support.sweeps import Made, hpc, in_every_state


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty points."""
    return reported_sweep(tmp_path_factory.mktemp("report") / "lr search", 30)


def data_of(page: str) -> Any:
    """What the page's script shows."""
    (text,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def reported(slurm: FakeSlurm, directory: Path, *more: str | Path) -> str:
    done = hpc(slurm, "report", directory, *more)
    assert done.exit_code == 0, done.output
    path = Path(done.stdout.rpartition(" (")[0])
    return path.read_text()


def test_the_page_needs_no_network_and_holds_its_libraries_with_their_licences(
    sweep: Path, fake_slurm: FakeSlurm
) -> None:
    page = reported(fake_slurm, sweep)
    assert (sweep / "report.html").stat().st_size < 4e6
    assert re.findall(r"<(?:link|script|img|iframe)[^>]+(?:href|src)=", page) == []
    for name, word in (("plotly", "plotly.js"), ("itables", "DataTables")):
        (packed,) = re.findall(rf'<script id="{name}" type="text/plain">(.*?)</script>', page)
        assert word in gzip.decompress(base64.b64decode(packed)).decode()
    assert page.count("Permission is hereby granted, free of charge") >= 2


def test_what_a_person_has_typed_stays_text(sweep: Path, fake_slurm: FakeSlurm) -> None:
    """Neither does it end the script that holds the data, nor is it an element of the page or of a chart."""
    page = reported(fake_slurm, sweep, "--output", sweep / "other.html")
    assert "<img src=x" not in page
    assert "<i>CUDA</i>" not in page
    data = data_of(page)
    assert any("</script><img src=x" in str(cell) for row in data["table"]["rows"] for cell in row)
    assert "<" not in json.dumps([data["views"], data["timelines"]]).replace("<extra>", "").replace("</extra>", "")


def test_a_sweep_in_every_state_is_reported(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    made: Made = in_every_state(tmp_path / "every", fake_slurm)
    table = data_of(reported(fake_slurm, made.directory))["table"]
    state = table["columns"].index("state")
    assert [row[state] for row in table["rows"]] == [
        *("finished", "running", "saving", "pending", "stopped", "failed", "failed", "lost", "cancelled", "unsubmitted")
    ]
    cause = table["columns"].index("cause")
    assert table["rows"][5][cause] == "ValueError: no such split"


def test_the_hours_add_up(sweep: Path, fake_slurm: FakeSlurm) -> None:
    found = histories(look(sweep, fake_slurm.environ).points, open_sweep(sweep), BEGAN)
    held = split(found)
    lives = [life for each in found for life in each.past]
    assert held.unit == "GPU-hours"
    assert held.total == pytest.approx(8 * sum(life.hours for life in lives))
    assert [*held.hours] == [*HELD]
    assert all(held.hours.values())
    waits = sum(max(life.events[-1].time for life in each.past) - BEGAN for each in found) / 3600
    assert held.waited == pytest.approx(waits - held.total / 8)


def test_without_gpus_ranks_are_counted(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    directory = reported_sweep(tmp_path / "cpu", 3, gpus=0)
    assert (
        split(histories(look(directory, fake_slurm.environ).points, open_sweep(directory), BEGAN)).unit == "rank-hours"
    )


def test_what_was_asked_is_told(sweep: Path, fake_slurm: FakeSlurm) -> None:
    status, stored = look(sweep, fake_slurm.environ), open_sweep(sweep)
    hardware = [stored.point(number).config["hardware"] for number in range(len(stored))]
    told = asked(status, stored, hardware, code_of(sweep))
    assert told["Command"].startswith("hpc run -m optimizer.lr=0.0001,0.0003,0.001,0.003,0.01 ")
    assert told["Swept"] == "optimizer.lr (5 values), note (2 values), seed (3 values)"
    assert "gpus_per_node=8, gpu_type=a100" in told["Resources of a point"]


def test_energy_is_told_where_the_nodes_tell_it(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    """Point 3 has two lives in one job, and its nodes told of the second; point 1's told nothing."""
    directory = reported_sweep(tmp_path / "measured", 5)
    begins = [life.events[0].time for life in _history(directory, fake_slurm, 3).past]
    ends = [*begins[1:], begins[-1] + 9000]
    lives = [f"100_3|{_slurm(begin - 30)}|{_slurm(end - 1)}|0" for begin, end in zip(begins, ends, strict=True)]
    lives[1] += f"\n100_3.extern|{_slurm(begins[1] - 30)}|{_slurm(ends[1] - 1)}|5400000"
    other = f"100_1|{_slurm(BEGAN + 60)}|Unknown|0\n100_1.batch|{_slurm(BEGAN + 60)}|Unknown|\n"
    old = f"100_0|{_slurm(BEGAN - 1e7)}|{_slurm(BEGAN - 9e6)}|7200000\n"
    fake_slurm.answer("sacct", old + other + "\n".join(lives) + "\n")
    text = reported(fake_slurm, directory)
    assert "<b>1.5</b>kWh" in text
    data = data_of(text)
    column = data["table"]["columns"].index("kWh")
    assert [row[column] for row in data["table"]["rows"]] == [None, None, None, 1.5, None]
    told = {text for trace in data["timelines"][0]["data"] for text in trace.get("customdata", ()) if "kWh" in text}
    assert told
    assert all(text.startswith("attempt 2 (1.5 kWh)") for text in told)


@pytest.mark.parametrize("answer", ["", "100_3|2026-09-21T14:13:20|2026-09-21T15:13:20|0\n", "unreadable\n"])
def test_energy_that_nobody_measures_is_not_shown(tmp_path: Path, fake_slurm: FakeSlurm, answer: str) -> None:
    fake_slurm.answer("sacct", answer)
    text = reported(fake_slurm, reported_sweep(tmp_path / "unmeasured", 5))
    assert "kWh" not in text.partition('<script id="plotly"')[0]


def _history(directory: Path, slurm: FakeSlurm, place: int) -> History:
    return histories(look(directory, slurm.environ).points, open_sweep(directory), BEGAN)[place]


def _slurm(seconds: float) -> str:
    """As sacct has a time."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))


def test_points_that_failed_alike_are_one_cause(sweep: Path, fake_slurm: FakeSlurm) -> None:
    (found,) = failures(look(sweep, fake_slurm.environ).points)
    assert (found.cause.text, found.points) == (REASON, ["5", "12", "19", "26"])
    assert "rank 3 of 8 on node7 failed first" in found.record


def test_a_long_file_of_metrics_is_read_in_places(tmp_path: Path) -> None:
    """Its first row and its last are among them; lines that are no rows are passed over."""
    path = RunDirectory(tmp_path).metrics
    lines = [json.dumps({"step": step, "loss": 1 / step, "note": "x" * 900}) for step in range(1, 3001)]
    path.write_text("\n".join([*lines[:500], "not a row", *lines[500:]]) + '\n{"step": 9999, "lo')
    (curve,) = curves([str(tmp_path)])
    steps, losses = curve.of("loss")
    assert 0.8 * MOST_PER_POINT <= len(steps) <= MOST_PER_POINT + 1
    assert (steps[0], steps[-1], losses[-1]) == (1, 3000, 1 / 3000)
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nowhere",), "nowhere must be a sweep's directory"),
        (("{sweep}", "seed=1"), "A report is about a whole sweep, but seed=1 names points"),
        (("{sweep}", "--output", "{sweep}"), "--output must be a file, but {sweep} is a directory."),
        (("{sweep}", "--output", "{sweep}/no/where.html"), "--output must be a file that can be written"),
    ],
)
def test_what_cannot_be_reported_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, sweep: Path, fake_slurm: FakeSlurm
) -> None:
    done = hpc(fake_slurm, "report", *(each.format(sweep=sweep) for each in arguments))
    assert done.exit_code == 78
    assert sentence.format(sweep=sweep) in " ".join(done.stderr.split())


def test_a_sweep_that_was_never_sent_has_nothing_to_report(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    made = Made(tmp_path / "never", fake_slurm).write(2, submitted=[])
    done = hpc(fake_slurm, "report", made.directory)
    assert done.exit_code == 78
    assert "must have been submitted before there is something to report" in " ".join(done.stderr.split())
    assert not (made.directory / "report.html").exists()
