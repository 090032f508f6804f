"""What has this command made of a submission that is refused? That is taken back, and nothing else.

Between the first file of a sweep, which one command alone can make, and the removal of that file, no other command
submits from this directory. Jobs of earlier sweeps may write their logs beside ours all the same.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpc.errors import ConfigurationError
from hpc.files import make_directory, remove_made
from hpc.run.directory import not_writable
from hpc.run.listing import is_sweep
from hpc.run.ownership import check_ownership, make_private
from hpc.run.points import Sweep
from hpc.run.submissions import SUBMISSIONS_FILE

UNSENT = re.compile(r"\.?submission_file_[0-9a-f]{32}\.sh|environment_[0-9a-f]{16}\.sh")
"""What has no number of a job in its name: submitit's files before sbatch has told it (submitit 1.5), and secrets."""


@contextmanager
def directory_of(sweep: Sweep) -> Iterator[list[Path]]:
    """A sweep's directory; what of it was made, from the top down. Without a sweep in it at the end, it goes again.

    Raises:
        ConfigurationError: It cannot be written, or others can write there.
    """
    directory = sweep.directory
    check_ownership(directory, sweep.points[0].settings.cluster.run_dir_writers)
    made: list[Path] = []
    try:
        made += [] if directory.is_dir() else make_directory(directory)
        yield made
    except OSError as error:
        remove_made(made)
        raise not_writable(directory, error) from error
    except BaseException:
        if not is_sweep(directory):
            remove_made(made)
        raise


class Made:
    """What lies in the directory of a sweep because of this command.

    Args:
        sweep: Its directory was not looked at yet.
        logs: submitit's directory.
        above: Directories that were made for it.
    """

    def __init__(self, sweep: Sweep, logs: Path, above: list[Path]) -> None:
        self.directory, self.logs = sweep.directory, logs
        record = sweep.directory / SUBMISSIONS_FILE
        ours = [] if record.stat().st_size else [record]
        try:
            self.paths = [*above, *ours, *sweep.write()]
        except BaseException:
            remove_made(ours)
            raise
        self.mode: int | None = None
        self.before: set[str] = set()
        try:
            self.mode = stat.S_IMODE(logs.lstat().st_mode) if logs.is_dir() else None
            self.before = set() if self.mode is None else {path.name for path in logs.iterdir()}
            self.paths += make_private(logs)
        except OSError as error:
            self.take_back([])
            raise ConfigurationError(
                f"{logs} must be a directory to write into, but is not: {error.strerror}."
            ) from error
        except BaseException:
            self.take_back([])
            raise

    def take_back(self, job_ids: list[str]) -> None:
        """Remove it all, the newest first: of the files, the one that keeps other commands out goes last.

        Args:
            job_ids: What was submitted, and is cancelled by now.
        """
        with suppress(OSError):
            for path in self.logs.iterdir():
                if path.name not in self.before and self._is_ours(path.name, job_ids):
                    path.unlink(missing_ok=True)
            if self.mode is not None:
                self.logs.chmod(self.mode)
        remove_made(self.paths)

    def _is_ours(self, name: str, job_ids: list[str]) -> bool:
        return bool(UNSENT.fullmatch(name)) or name.partition("_")[0] in job_ids
