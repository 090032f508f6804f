"""What the answers of ranks mean, and what a journal says of the stop and the life after it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hpc.doctor.canary import FINDINGS_FILE, tell, verdict
from hpc.doctor.finding import NOTE, OK, PROBLEM, Finding
from hpc.run.events import Committed, Event, Failed, Resumed, Stopped
from hpc.run.journal import Journal

RANK = {
    "host": "node1", "devices": 1, "given": "0", "device": "GPU-1", "torch": "2.13", "won": False,
    "shared_memory_gb": 20.0, "all_reduce_gb_per_second": 3.5, "skew_seconds": 0.1,
}  # fmt: skip


def answers(**second: Any) -> list[dict[str, Any] | None]:
    return [{**RANK, "won": True}, {**RANK, "host": "node2", "device": "GPU-2", **second}]


def test_a_good_allocation_has_no_problem() -> None:
    findings = list(tell(answers()))
    assert {finding.level for finding in findings} == {OK}
    text = " ".join(finding.text for finding in findings)
    assert "2 rank(s) on 2 node(s): node1, node2." in text
    assert "2 GPU(s), each of one rank: GPU-1, GPU-2." in text
    assert "3.5 GB/s of bus bandwidth" in text


@pytest.mark.parametrize(
    ("second", "check", "level", "words"),
    [
        ({"won": True}, "exclusive_files", PROBLEM, "2 ranks made one file at once"),
        ({"devices": 0}, "devices", PROBLEM, "Slurm gave rank 1 1 GPU(s) (0), and torch 2.13 sees 0."),
        ({"given": "", "devices": 8}, "devices", PROBLEM, "Slurm gave rank 1 0 GPU(s) (none)"),
        ({"skew_seconds": -60.0}, "clock", NOTE, "node2 is 60 s off"),
        ({"shared_memory_gb": 0.06}, "shared_memory", NOTE, "node2 has 0.06 GB free"),
    ],
)
def test_what_is_wrong_in_an_allocation_is_told(second: dict[str, Any], check: str, level: str, words: str) -> None:
    (finding,) = (each for each in tell(answers(**second)) if each.check == check)
    assert (finding.level, words in finding.text) == (level, True), finding


def test_a_node_whose_files_are_not_seen_is_a_problem() -> None:
    (finding,) = tell([RANK, None])
    assert (finding.level, "what ranks 1 wrote" in finding.text) == (PROBLEM, True)


def told(point: Path, *events: Event, told_at: float = 100.0, spoke: bool = True) -> dict[str, Finding]:
    for number, event in enumerate(events):
        Journal(point, f"a{number}").write(event)
    if spoke:
        (point / "doctor").mkdir()
        (point / "doctor" / FINDINGS_FILE).write_text(json.dumps([asdict(Finding("ranks", OK, "2."))]))
    return {finding.check: finding for finding in verdict(point, told_at)}


def test_a_stop_and_a_further_life_are_proved(tmp_path: Path) -> None:
    findings = told(tmp_path, Committed(7, 0.5, 0.1), Stopped(7, "SIGUSR2"), Resumed(7))
    assert [finding.level for finding in findings.values()] == [OK, OK, OK]
    assert "stopped at step 7" in findings["signal"].text
    assert "its save took 0.50 s" in findings["signal"].text
    assert "went on at step 7" in findings["requeue"].text


def test_a_signal_that_never_arrived_is_a_problem(tmp_path: Path) -> None:
    assert told(tmp_path, Resumed(0))["signal"].level == PROBLEM


@pytest.mark.parametrize("resumed", [(), (Resumed(0),), (Resumed(3),)])
def test_a_life_that_did_not_go_on_from_there_is_a_problem(tmp_path: Path, resumed: tuple[Resumed, ...]) -> None:
    findings = told(tmp_path, Committed(7, 0.5, 0.1), Stopped(7, "SIGUSR2"), *resumed)
    assert (findings["signal"].level, findings["requeue"].level) == (OK, PROBLEM)


def test_a_job_that_failed_before_is_a_problem_with_its_reason(tmp_path: Path) -> None:
    findings = told(tmp_path, Failed(1, 1, "RuntimeError: no network"), told_at=0.0, spoke=False)
    assert "RuntimeError: no network" in findings["canary"].text
    assert "hpc logs" in findings["canary"].advice
