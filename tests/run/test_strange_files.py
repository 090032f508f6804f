"""What lies in the place of a run's file and is none: a sentence names it, and nothing waits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc import say
from hpc.errors import HpcError
from hpc.launch.record import claim
from hpc.run.code import submitted
from hpc.run.directory import RunDirectory
from hpc.run.events import Closed
from hpc.run.journal import Journal, read_journal
from hpc.run.point import Point
from hpc.run.points import Sweep, load_sweep
from hpc.run.queue import ask_to_cancel, read_queue
from hpc.run.result import read_result, write_result
from hpc.run.submissions import newest_jobs
from hpc.tracking.metrics import Metrics

USES: dict[str, Callable[[Path], object]] = {
    "journal/a.jsonl": lambda run: Journal(run, "a").write(Closed()),
    "journal": lambda run: Journal(run, "a").write(Closed()),
    "journal/b.jsonl": read_journal,
    "journal.jsonl": read_journal,
    "metrics.jsonl": lambda run: Metrics(run, 3),
    "logs/rank_0.log": lambda run: say.set_up(0, RunDirectory(run).log(0)),
    "logs": lambda run: say.set_up(0, RunDirectory(run).log(0)),
    "points.jsonl": load_sweep,
    "sweep.json": load_sweep,
    "secrets.json": load_sweep,
    "finished.json": read_result,
    "code.jsonl": submitted,
    "queue/record.jsonl": claim,
}
TOLD_ON: dict[str, Callable[[Path], object]] = {
    "queue/record.jsonl": read_queue,
    "queue/cancel": lambda run: ask_to_cancel(run, ["0"]),
    "submissions.jsonl": newest_jobs,
}
"""Those that let the verbs say what an OSError means."""


def a_link(path: Path, precious: Path) -> None:
    path.symlink_to(precious)


def a_hard_link(path: Path, precious: Path) -> None:
    os.link(precious, path)


def a_pipe(path: Path, precious: Path) -> None:
    del precious
    os.mkfifo(path)


def put(kind: Callable[[Path, Path], None], name: str, run: Path) -> Path:
    """Put something of that kind there, beside what else a run has; returns the file that must stay as it is."""
    Sweep(run, (Point("0", (), {"token": "abc"}),)).write()
    precious = run.parent / "precious"
    precious.write_text("{}")
    path = run / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    kind(path, precious)
    return precious


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("kind", [a_link, a_pipe])
def test_a_link_or_a_pipe_is_a_sentence(kind: Callable[[Path, Path], None], name: str, tmp_path: Path) -> None:
    precious = put(kind, name, tmp_path / "run")
    with pytest.raises(HpcError, match=name.partition("/")[0]):
        USES[name](tmp_path / "run")
    assert precious.read_text() == "{}"


@pytest.mark.parametrize("name", TOLD_ON)
@pytest.mark.parametrize("kind", [a_link, a_pipe])
def test_a_link_or_a_pipe_is_neither_followed_nor_waited_for(
    kind: Callable[[Path, Path], None], name: str, tmp_path: Path
) -> None:
    precious = put(kind, name, tmp_path / "run")
    with pytest.raises(OSError, match=r"it is a link|it is not a regular file") as refused:
        TOLD_ON[name](tmp_path / "run")
    assert str(refused.value.filename).endswith(name)
    assert precious.read_text() == "{}"


@pytest.mark.parametrize("name", ["journal/a.jsonl", "logs/rank_0.log"])
def test_nothing_is_added_to_a_file_that_has_other_names(name: str, tmp_path: Path) -> None:
    precious = put(a_hard_link, name, tmp_path / "run")
    with pytest.raises(HpcError, match="several names"):
        USES[name](tmp_path / "run")
    assert precious.read_text() == "{}"


@pytest.mark.parametrize("kind", [a_link, a_hard_link, a_pipe])
def test_a_result_takes_the_place_of_whatever_was_there(kind: Callable[[Path, Path], None], tmp_path: Path) -> None:
    precious = put(kind, "finished.json", tmp_path / "run")
    write_result(tmp_path / "run", 3)
    result = read_result(tmp_path / "run")
    assert result is not None
    assert result.value == 3
    assert precious.read_text() == "{}"
