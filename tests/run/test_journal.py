"""The journal survives what the process does not, and is read whoever wrote it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from hpc.errors import LoadError, SaveError
from hpc.run.events import NAMES, Committed, Failed, Finished, Resumed, Started, from_line, to_line
from hpc.run.journal import Journal, read_journal
from hpc.run.lives import crashes, last_committed_step, lives

OLD_JOURNAL = Path(__file__).with_name("old_journal.jsonl")


def test_events_come_back_with_the_attempt_and_the_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "slurm.42-0.0")
    journal.write(Started("slurm", 2, ("node1", "node2")))
    journal.write(Committed(10, 1.5))
    started, committed = read_journal(tmp_path)
    assert started == Started("slurm", 2, ("node1", "node2"), attempt="slurm.42-0.0", time=started.time)
    assert committed == Committed(10, 1.5, attempt="slurm.42-0.0", time=committed.time)
    assert 1.7e9 < started.time <= committed.time


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_event_is_read_as_it_was_written(name: str) -> None:
    values: dict[Any, Any] = {
        "bool": True, "int": 3, "float": 1.5, "str": "x", "tuple[str, ...]": ("a", "b"), "Any": {"loss": [0.5]},
        "dict[str, str]": {"torch": "2.6.0"},
    }  # fmt: skip
    event = NAMES[name](**{field.name: values[field.type] for field in fields(NAMES[name])})
    assert json.loads(to_line(event))["event"] == name
    assert from_line(to_line(event)) == event


def test_every_process_has_a_file_of_its_own(tmp_path: Path) -> None:
    Journal(tmp_path, "b").write(Resumed(5))
    Journal(tmp_path, "a").write(Resumed(6))
    Journal(tmp_path, "a", rank=3).write(Failed(3, 1))
    names = sorted(path.name for path in (tmp_path / "journal").iterdir())
    assert names == ["a.jsonl", "a.rank_3.jsonl", "b.jsonl"]
    assert sorted(event.attempt for event in read_journal(tmp_path)) == ["a", "a", "b"]


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "\n\n",
        '{"event": "committed", "st',
        '{"event": "committed", "step": "ten", "time": 1}',
        '{"event": "committed", "step": true, "time": 1}',
        '{"event": "committed", "step": 7, "time": 1e999}',
        '{"event": "committed", "step": 7, "time": null}',
        '{"event": "committed"}',
        '{"event": ["committed"], "step": 7}',
        '{"event": "of a later version", "step": 7}',
        '["committed", 7]',
        "7",
        "[" * 100_000,
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_a_line_that_is_no_event_is_passed_over(tmp_path: Path, garbage: str) -> None:
    journal = Journal(tmp_path, "1")
    journal.write(Committed(10))
    with journal.path.open("a") as file:
        file.write(garbage)
    assert [event.step for event in read_journal(tmp_path) if isinstance(event, Committed)] == [10]


def test_binary_garbage_is_passed_over(tmp_path: Path) -> None:
    Journal(tmp_path, "1").write(Committed(10))
    (tmp_path / "journal" / "2.jsonl").write_bytes(os.urandom(4096))
    (tmp_path / "journal" / "3.jsonl").write_bytes(b"")
    assert len(read_journal(tmp_path)) == 1


def test_nothing_is_known_of_a_run_that_never_was(tmp_path: Path) -> None:
    assert read_journal(tmp_path) == []


@pytest.mark.parametrize("name", ["journal", "journal.jsonl", "journal/1.jsonl"])
def test_what_is_no_journal_is_one_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if name == "journal":
        path.write_text("")
    elif name == "journal.jsonl":
        path.mkdir()
    else:
        os.mkfifo(path)  # reading it would hang
    with pytest.raises(LoadError, match=f"The journal of {tmp_path} must be readable, but {path} is not: it is not a"):
        read_journal(tmp_path)


@pytest.mark.parametrize("put", ["link", "pipe", "file for the directory"])
def test_nothing_is_written_through_what_somebody_else_put_there(tmp_path: Path, put: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    journal = Journal(tmp_path / "run", "1")
    (tmp_path / "run").mkdir()
    if put == "file for the directory":
        journal.path.parent.write_text("")
    else:
        journal.path.parent.mkdir()
    if put == "link":
        journal.path.symlink_to(victim)
    if put == "pipe":
        os.mkfifo(journal.path)
    with pytest.raises(SaveError, match="must be a file that can be written, but is not"):
        journal.write(Resumed(0))
    assert victim.read_text() == "precious"


def test_the_one_file_of_an_older_version_is_read_as_it_was_meant(tmp_path: Path) -> None:
    shutil.copy(OLD_JOURNAL, tmp_path / "journal.jsonl")
    past = lives(read_journal(tmp_path))
    assert [life.attempt for life in past] == ["old-1", "old-2", "old-3"]
    assert last_committed_step(past) == 100
    assert crashes(past) == 1
    Journal(tmp_path, "new").write(Started("none", 1, ()))
    Journal(tmp_path, "new").write(Finished(0.5))
    assert [life.left_well for life in lives(read_journal(tmp_path))] == [True, False, False, True]
