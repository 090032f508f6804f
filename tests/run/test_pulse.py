from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hpc.run.pulse import RECORD_BYTES, Pulse, PulseFile, process_began, read_pulses

PULSE = Pulse("a.1", 3, "node7", 12, 345, 17, "training", 5.0, 4.0, 4.5, 4.9)


def test_what_a_rank_told_last_is_read_by_anybody(tmp_path: Path) -> None:
    file = PulseFile(tmp_path, 3)
    file.write(replace(PULSE, phase="a long phase" * 5))
    file.write(PULSE)
    assert read_pulses(tmp_path) == read_pulses(tmp_path, "a.1", [2, 3]) == {3: PULSE}
    assert read_pulses(tmp_path, "a.2") == read_pulses(tmp_path, "a.1", [2]) == {}


def test_the_next_attempt_replaces_the_file_and_the_one_before_cannot_write_into_it(tmp_path: Path) -> None:
    old = PulseFile(tmp_path, 3)
    new = PulseFile(tmp_path, 3)
    new.write(replace(PULSE, attempt="a.2"))
    old.write(PULSE)
    assert [each.attempt for each in read_pulses(tmp_path).values()] == ["a.2"]
    assert len(list((tmp_path / "pulses").iterdir())) == 1


def test_stacks_lie_behind_the_record(tmp_path: Path) -> None:
    file = PulseFile(tmp_path, 3)
    os.write(file.descriptor, b"Thread 1\n")
    file.write(PULSE)
    os.write(file.descriptor, b"Thread 2\n")
    told = (tmp_path / "pulses" / "rank_3.txt").read_bytes()
    assert told[RECORD_BYTES:] == b"Thread 1\nThread 2\n"
    assert told[:RECORD_BYTES].endswith(b" \n")
    assert read_pulses(tmp_path) == {3: PULSE}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "[" * 100_000, json.dumps({**asdict(PULSE), "step": "x"}), json.dumps({"attempt": "a.1"}), "\xff"],
)
def test_what_is_no_pulse_is_left_out(tmp_path: Path, text: str) -> None:
    PulseFile(tmp_path, 1).write(replace(PULSE, rank=1))
    (tmp_path / "pulses" / "rank_2.txt").write_bytes(text.encode("latin-1"))
    (tmp_path / "pulses" / "rank_4.txt").symlink_to(tmp_path / "pulses" / "rank_1.txt")
    os.mkfifo(tmp_path / "pulses" / "rank_5.txt")
    assert list(read_pulses(tmp_path)) == [1]


def test_where_nothing_was_told_nothing_is_read(tmp_path: Path) -> None:
    assert read_pulses(tmp_path / "nowhere") == {}


def test_a_process_is_told_from_a_later_one_of_its_number() -> None:
    assert process_began(os.getpid()) > process_began(1) >= 0
    assert process_began(2**22 + 1) == 0
