"""Files of a run directory: nobody else writes them, and no name in it leads out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc.files import (
    append_text,
    create,
    make_directory,
    narrow_umask,
    open_to_append,
    read_regular,
    replace_text,
    replacing,
)

UMASKS = (0o000, 0o002, 0o027, 0o077)
Write = Callable[[Path], object]


def make(path: Path) -> None:
    with create(path) as file:
        file.write(b"new")


WRITERS: dict[str, Write] = {
    "replaced": lambda path: replace_text(path, "new"),
    "added to": lambda path: append_text(path, "new"),
    "made": make,
}


@pytest.fixture(params=UMASKS, ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_others_write_nothing_whatever_the_umask_is(tmp_path: Path, umask: int) -> None:
    made = make_directory(tmp_path / "a" / "b" / "closed", 0o700)
    assert made == [tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/closed"]
    assert [mode(path) for path in made] == [0o755 & ~umask, 0o755 & ~umask, 0o700]
    for name, write in WRITERS.items():
        write(tmp_path / name)
        assert mode(tmp_path / name) == 0o644 & ~umask
    replace_text(tmp_path / "secret", "", 0o600)
    assert mode(tmp_path / "secret") == 0o600
    with narrow_umask():
        (tmp_path / "of others").write_text("")
    assert mode(tmp_path / "of others") == 0o644 & ~umask
    (tmp_path / "after").write_text("")
    assert mode(tmp_path / "after") == 0o666 & ~umask


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").write_text("precious")
    for link, target in (("to a file", "precious"), ("to nothing", "nothing")):
        (tmp_path / link).symlink_to(tmp_path / target)
        if name == "replaced":
            WRITERS[name](tmp_path / link)
            assert not (tmp_path / link).is_symlink()
        else:
            with pytest.raises(OSError, match=r"it is a link|File exists"):
                WRITERS[name](tmp_path / link)
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "nothing").exists()


def test_nothing_is_added_to_a_file_that_lies_elsewhere_too(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    os.link(tmp_path / "precious", tmp_path / "log")
    with pytest.raises(OSError, match="one of several names"):
        append_text(tmp_path / "log", "new")
    replace_text(tmp_path / "log", "new")
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for use in (read_regular, open_to_append):
        with pytest.raises(OSError, match="not a regular file"):
            use(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="not a regular file"):
        open_to_append(tmp_path / "pipe")
    os.close(reader)
    with pytest.raises(OSError, match="not a regular file"):
        read_regular("/dev/zero")


def test_reading_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="it is a link"):
        read_regular(tmp_path / "link")


def test_no_directory_is_made_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "logs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    for name in ("logs", "dangling"):
        with pytest.raises(OSError, match="it is a link"):
            make_directory(tmp_path / name)
    for name in ("file", "file/below", "dangling/below"):
        with pytest.raises(OSError, match=r"[Nn]ot a directory|No such file|File exists"):
            make_directory(tmp_path / name)
    assert not (tmp_path / "nothing").exists()


def test_nobody_can_guess_the_name_of_a_file_that_is_being_written(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        with replacing(tmp_path / "file"):
            names |= {path.name for path in tmp_path.iterdir()} - {"file"}
    assert len(names) == 3


def test_a_file_that_is_not_finished_vanishes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "file") as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"
