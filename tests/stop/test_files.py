from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpc.stop.files import RequestFiles
from hpc.stop.requests import StopCause, StopRequests


@pytest.fixture
def files(tmp_path: Path) -> RequestFiles:
    return RequestFiles(tmp_path, StopRequests())


def found(files: RequestFiles) -> StopCause:
    files.look()
    return files.requests.cause


def test_a_stop_file_asks_once(files: RequestFiles) -> None:
    assert found(files) is StopCause.NONE
    files.stop.touch()
    assert found(files) is StopCause.STOP_FILE
    assert not files.stop.exists()


def test_a_save_file_waits_for_somebody_who_can_save(files: RequestFiles) -> None:
    asked: list[str] = []
    files.save.touch()
    files.look()
    files.requests.on_save = lambda: asked.append("saved")
    assert files.save.exists()
    files.look()
    files.look()
    assert asked == ["saved"]
    assert not files.save.exists()


def test_what_is_no_file_of_ours_asks_for_nothing_and_is_said_once(
    files: RequestFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = files.stop.with_name("mine")
    mine.touch()
    files.stop.symlink_to(mine)
    os.mkfifo(files.save)
    files.requests.on_save = lambda: pytest.fail("nobody asked for it")
    files.look()
    files.look()
    assert files.requests.cause is StopCause.NONE
    assert files.stop.is_symlink()
    said = capsys.readouterr().err
    assert (said.count("stop asks for nothing"), said.count("save asks for nothing")) == (1, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_file_of_somebody_else_asks_for_nothing(files: RequestFiles) -> None:
    files.stop.touch()
    os.chown(files.stop, 12345, 12345)
    files.look()
    assert files.requests.cause is StopCause.NONE
    assert files.stop.exists()
