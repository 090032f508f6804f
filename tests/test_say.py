"""What hpc says reaches the screen once, from the right ranks, and every rank's log file."""

from __future__ import annotations

import contextlib
import logging
import logging.config
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc import say as voice
from hpc.errors import ConfigurationError
from hpc.say import answering, aside, error, fail, phase, say, set_up, warn
from tests.conftest import clean_environment

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _as_found() -> Iterator[None]:
    """Each test begins and ends with logging as pytest has set it up."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    set_up(0)
    logging.captureWarnings(False)
    root.handlers, root.level = handlers, level


def speak() -> None:
    say("a word")
    warn("a warning")
    error("an error")
    fail(ConfigurationError("seed must be an integer, but is x."))


EVERYTHING = "hpc: a warning\nhpc: an error\nhpc: seed must be an integer, but is x.\n"


def test_before_it_is_set_up_every_process_speaks_to_its_screen(capsys: Captured) -> None:
    speak()
    assert capsys.readouterr() == ("a word\n", EVERYTHING)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_screen_is_rank_0s_but_for_errors_and_each_rank_has_a_log(
    rank: int, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "logs" / f"rank_{rank}.log"
    set_up(rank, path)
    speak()
    shown = ("a word\n", EVERYTHING) if rank == 0 else ("", EVERYTHING.partition("\n")[2])
    assert capsys.readouterr() == shown
    kept = path.read_text()
    assert all(f"{level} hpc: a" in kept for level in ("INFO", "WARNING", "ERROR"))
    assert "ERROR hpc: seed must be an integer, but is x." in kept
    assert "Traceback" not in kept  # an exception that was never raised has none


def raised(cause: BaseException) -> BaseException:
    try:
        raise cause
    except type(cause) as error:
        return error


@pytest.mark.parametrize("asked", ["", "0", "1"])
def test_a_sentence_shows_where_it_came_from_when_asked(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("HPC_TRACEBACK", asked)
    set_up(0, tmp_path / "log")
    fail(raised(ConfigurationError("seed must be an integer, but is x.")))
    shown = capsys.readouterr().err
    assert shown.endswith("hpc: seed must be an integer, but is x.\n")
    assert ("in raised\n" in shown) == (asked == "1")
    assert "in raised\n" in (tmp_path / "log").read_text()


def test_an_error_that_is_not_a_sentence_keeps_its_traceback(capsys: Captured) -> None:
    fail(raised(ValueError("no such word")))
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith("ValueError: no such word\n")


def test_a_program_that_configures_logging_does_not_silence_errors(tmp_path: Path, capsys: Captured) -> None:
    """`dictConfig` turns off what it does not name, and force=True closes the handlers of the root logger."""
    set_up(1, tmp_path / "log")
    logging.config.dictConfig({"version": 1})
    logging.basicConfig(force=True)
    logging.disable(logging.CRITICAL)
    try:
        error("an error")
    finally:
        logging.disable(logging.NOTSET)
    assert capsys.readouterr().err == "hpc: an error\n"
    assert "an error" in (tmp_path / "log").read_text()


PROGRAM = """
import logging, sys, warnings
from hpc.say import say, set_up
if "own" in sys.argv:
    logging.basicConfig(format="own %(message)s", level=logging.INFO)
set_up(int(sys.argv[1]), sys.argv[2] and __import__("pathlib").Path(sys.argv[2]))
logging.getLogger("theirs").info("of a library")
warnings.warn("look out")
say("of hpc")
"""


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("own", [True, False])
def test_other_loggers_go_the_same_way_and_handlers_that_were_there_stay(rank: str, own: bool, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, rank, str(tmp_path / "log"), *(["own"] if own else [])]
    environment = clean_environment()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == ("of hpc\n" if rank == "0" else "")
    assert done.stderr.count("own of a library\n") == own
    assert done.stderr.count("INFO theirs: of a library\n") == (rank == "0" and not own)
    assert done.stderr.count("look out") == (rank == "0" or own)
    kept = (tmp_path / "log").read_text()
    assert [kept.count(words) for words in ("of a library", "of hpc")] == [1, 1]


def test_a_later_run_in_the_same_process_has_a_log_of_its_own(tmp_path: Path) -> None:
    for name in ("first", "second"):
        set_up(0, tmp_path / name)
        say(f"the {name}")
    assert [(tmp_path / name).read_text().count("the ") for name in ("first", "second")] == [1, 1]


def test_a_log_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where a directory must be")
    with pytest.raises(
        ConfigurationError, match=r"must be writable, but .*logs/rank_0\.log is not: (File exists|Not a)"
    ):
        set_up(0, tmp_path / "logs" / "rank_0.log")


def test_a_log_on_a_full_disk_is_given_up_once(capsys: Captured, tmp_path: Path) -> None:
    set_up(0, tmp_path / "log")
    logs = (each for each in voice.logger.handlers if isinstance(each, logging.FileHandler))
    (file,) = (each for each in logs if each.baseFilename == str(tmp_path / "log"))
    with Path("/dev/full").open("wb") as full:  # no log is opened there: it is no regular file
        assert file.stream is not None
        os.dup2(full.fileno(), file.stream.fileno())
    say("first")
    say("second")
    shown = capsys.readouterr()
    assert shown.out == "first\nsecond\n"
    assert shown.err.count(f"{tmp_path / 'log'} cannot be written any more") == 1
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("closed", [True, False])
def test_a_screen_that_is_gone_ends_nothing(closed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(0, tmp_path / "log")
    stream = Path("/dev/full").open("w")  # noqa: SIM115 (closing it fails as well)
    if closed:
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    say("a word")
    monkeypatch.undo()
    with contextlib.suppress(OSError):
        stream.close()
    assert "a word" in (tmp_path / "log").read_text()


def test_a_terminal_without_utf_8_shows_what_it_can() -> None:
    command = [sys.executable, "-c", "from hpc.say import say; say('2 × 3')"]
    environment = clean_environment(PYTHONIOENCODING="ascii")
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
    assert done.stdout == b"2 \\xd7 3\n"


def test_a_phase_speaks_when_it_lasts_and_not_when_it_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    with phase("Doing nothing"):
        pass
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(voice, "PHASE_SECONDS", 0.01)
    said = threading.Event()

    def say_and_tell(text: str) -> None:
        aside(text)
        said.set()

    monkeypatch.setattr(voice, "aside", say_and_tell)
    with phase("Connecting to 7 other ranks"):
        assert said.wait(60)
    assert capsys.readouterr().out == "Connecting to 7 other ranks ...\n"


def test_an_answer_is_kept_clean(capsys: Captured) -> None:
    with answering():
        aside("Composing ...")
        say("the answer")
    aside("as usual")
    assert capsys.readouterr() == ("the answer\nas usual\n", "Composing ...\n")


def test_where_nobody_has_imported_tqdm_speaking_does_not() -> None:
    program = "import sys; from hpc.say import say; say('a word'); sys.exit('tqdm' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], env=clean_environment(), timeout=60, check=True)
