"""The one way hpc speaks: to the screen, and to the log file of each rank.

    say     what happens         rank 0's to standard output
    warn    what to look at      rank 0's to standard error, after `hpc: `
    error   what went wrong      any rank's to standard error, after `hpc: `
    fail    why a run ended      as error; a traceback where the exception is not one of hpc's own sentences
    aside   how it is going      as say; where what is printed is an answer, such as a script, to standard error
    phase   what takes so long   as aside, once it has lasted two seconds
    each    how far it is        a bar on a terminal, as phase elsewhere

All of it goes through the logger "hpc". Before `set_up`, and in a program that never calls it, every process speaks to
its screen and there is no file.
"""

from __future__ import annotations

import io
import logging
import sys
import traceback
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Timer
from typing import TextIO, TypeVar

from hpc.environ import process_environ
from hpc.errors import ConfigurationError, HpcError
from hpc.files import make_directory, open_to_append

TRACEBACK = "HPC_TRACEBACK"
"""Set to 1, it shows where in the code the sentence of an error came from."""
PHASE_SECONDS = 2.0
"""A silence that is shorter needs no explanation."""
NAME = "hpc"
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
PREFIX = "hpc: "
Item = TypeVar("Item")


class _Screen(logging.Handler):
    """This process's screen. Standard output and error are looked up anew each time, because programs replace them."""

    answers = False

    def emit(self, record: logging.LogRecord) -> None:
        """Show hpc's own words as they are, and those of other loggers with their time and name."""
        is_told = record.name == NAME and record.levelno < logging.WARNING and not self._keeps_out(record)
        stream = sys.stdout if is_told else sys.stderr
        text = getattr(record, "shown", None) or self.format(record).rstrip("\n")
        try:
            with clear_of_bars():
                _write(stream, text)
        except (OSError, ValueError):  # the terminal is gone or the stream is closed, which is no reason to end a run
            pass

    def _keeps_out(self, record: logging.LogRecord) -> bool:
        return self.answers and getattr(record, "is_aside", False)


class _File(logging.FileHandler):
    """A rank's log file. One that cannot be written any more is given up with a warning, and training goes on."""

    def _open(self) -> io.TextIOWrapper:
        """As logging does it, but never through a link, or into a pipe."""
        return io.TextIOWrapper(open_to_append(Path(self.baseFilename)), encoding=self.encoding, errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (this is logging's name)
        """Say once that the file is given up; logging would print a traceback for every message."""
        del record
        reason = sys.exc_info()[1]
        _drop(self)
        warn(f"{self.baseFilename} cannot be written any more ({reason}): messages are shown on the screen only.")


logger = logging.getLogger(NAME)
logger.setLevel(logging.INFO)
logger.propagate = False  # else a program whose root logger has a handler shows every sentence twice
_screen = _Screen()
_screen.setFormatter(logging.Formatter(FORMAT))
logger.addHandler(_screen)


def say(text: str) -> None:
    """Tell what happens: from rank 0 to standard output."""
    _speak(logging.INFO, text, text)


def aside(text: str) -> None:
    """Tell how something is going: from rank 0 to standard output, or to standard error inside `answering`."""
    _speak(logging.INFO, text, text, is_aside=True)


def warn(text: str, cause: BaseException | None = None) -> None:
    """Tell what the user should look at: from rank 0 to standard error.

    Args:
        text: A sentence.
        cause: Its traceback is kept in the log file, and shown with HPC_TRACEBACK=1.
    """
    _speak(logging.WARNING, text, _with_traceback(PREFIX + text, cause), cause)


def error(text: str) -> None:
    """Tell what went wrong: from any rank to standard error."""
    _speak(logging.ERROR, text, PREFIX + text)


def fail(cause: BaseException) -> None:
    """Tell why a run or a command ends: from any rank to standard error."""
    _speak(logging.ERROR, str(cause) or type(cause).__name__, described(cause), cause)


def described(cause: BaseException) -> str:
    """What a person is shown of an exception: hpc's own sentence, or the traceback of everything else."""
    if isinstance(cause, HpcError):
        return _with_traceback(PREFIX + str(cause), cause)
    return _traceback(cause)


def set_up(rank: int, log_file: Path | None = None) -> None:
    """From here on only rank 0 speaks to the screen, except for errors; every rank keeps everything in its log file.

    What the program's other loggers and Python's warnings say goes the same way. A program that has set up logging
    itself keeps its own handlers, and gets the file beside them. A later call replaces the file of an earlier one.

    Args:
        rank: Of this process.
        log_file: Its directory is made, and text is added to its end. None keeps no file.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    _screen.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    root = logging.getLogger()
    for handler in [*logger.handlers, *root.handlers]:
        if isinstance(handler, _File):
            _drop(handler)
    if root.handlers in ([], [_screen]):
        root.handlers = [_screen]
        root.setLevel(logging.INFO)
        logging.captureWarnings(True)
    if log_file is not None:
        file = _opened(log_file)
        logger.addHandler(file)
        root.addHandler(file)
    logging.getLogger("submitit").propagate = False  # it has a handler of its own


@contextmanager
def answering() -> Iterator[None]:
    """Around a command whose standard output is its answer, byte for byte."""
    _screen.answers = True
    try:
        yield
    finally:
        _screen.answers = False


@contextmanager
def phase(text: str) -> Iterator[None]:
    """Around work that may take long without a word: says what it is, once, when it has lasted two seconds."""
    timer = Timer(PHASE_SECONDS, aside, [f"{text} ..."])
    timer.daemon = True  # a program that ends in the middle does not wait for it
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def each(items: Collection[Item], text: str) -> Iterator[Item]:
    """The items, one after the other, to somebody who waits for all of them: a bar on a terminal, `phase` elsewhere.

    Args:
        items: What is worked on.
        text: What is done with them.
    """
    if len(items) < 2 or not sys.stderr.isatty():
        with phase(text):
            yield from items
        return
    from tqdm import tqdm  # deferred: jobs that show no bar need not import it

    yield from tqdm(items, desc=text, delay=PHASE_SECONDS, leave=False, file=sys.stderr)


def clear_of_bars() -> AbstractContextManager[None]:
    """Around writing to the screen: progress bars that tqdm has drawn are wiped before and drawn again after."""
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)  # where nobody has imported it, there is no bar
    return nullcontext() if bars is None else bars.external_write_mode()


def _speak(level: int, text: str, shown: str, cause: BaseException | None = None, is_aside: bool = False) -> None:
    """Past the logger's switches: a program's `logging.config.dictConfig` turns off every logger it does not name."""
    trace = None if cause is None else (type(cause), cause, cause.__traceback__)
    extra = {"shown": shown, "is_aside": is_aside}
    logger.callHandlers(logger.makeRecord(NAME, level, "", 0, text, (), trace, extra=extra))


def _write(stream: TextIO, text: str) -> None:
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:  # a terminal without UTF-8
        print(text.encode("ascii", "backslashreplace").decode(), file=stream, flush=True)


def _with_traceback(sentence: str, cause: BaseException | None) -> str:
    if cause is None or process_environ().get(TRACEBACK, "0") in ("", "0"):
        return sentence
    return f"{_traceback(cause)}\n{sentence}"


def _traceback(cause: BaseException) -> str:
    return "".join(traceback.format_exception(cause)).rstrip("\n")


def _opened(path: Path) -> _File:
    try:
        make_directory(path.parent)
        file = _File(path, encoding="utf-8", errors="backslashreplace")
    except OSError as problem:
        raise ConfigurationError(f"run_dir must be writable, but {path} is not: {problem.strerror}.") from problem
    file.setFormatter(logging.Formatter(FORMAT))
    return file


def _drop(file: _File) -> None:
    for owner in (logger, logging.getLogger()):
        owner.removeHandler(file)
    with suppress(OSError):  # what could not be written cannot be written now
        file.close()
