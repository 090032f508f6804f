"""The journal survives what the process does not."""

from __future__ import annotations

from pathlib import Path

from hpc.run.journal import Journal


def test_events_come_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("started", job="1-0")
    journal.write("committed", step=10)
    assert [(event["event"], event.get("step")) for event in journal.events()] == [("started", None), ("committed", 10)]


def test_a_line_cut_short_is_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("committed", step=10)
    with journal.path.open("a") as file:
        file.write('{"event": "committed", "st')
    assert journal.last_committed_step() == 10


def test_nothing_is_known_of_a_run_that_never_was(tmp_path: Path) -> None:
    assert Journal(tmp_path).events() == []
    assert Journal(tmp_path).last_committed_step() is None
    assert Journal(tmp_path).lives_without_progress() == 0


def test_a_commit_forgives_earlier_lives(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for event in ("started", "started", "committed", "started"):
        journal.write(event, step=1)
    assert journal.lives_without_progress() == 1
