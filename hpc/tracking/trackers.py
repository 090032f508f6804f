"""Where a run's curves go besides metrics.jsonl: TensorBoard, CSV, W&B, MLflow, or the user's own.

A tracker lives on rank 0 and gets the values that are shown on the screen, when they are shown. After a requeue it goes
on with the same run, whose id is kept in the point's directory.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from hpc.config import leaves
from hpc.config.secrets import masked_override
from hpc.errors import ConfigurationError
from hpc.files import make_directory, narrow_umask, open_to_append, read_regular, replace_text
from hpc.run.directory import RunDirectory
from hpc.say import warn


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told at the beginning of a life.

    Args:
        directory: The point's.
        name: The experiment's.
        config: Everything that was configured, without secrets.
        step: The step that this life goes on from. Later steps that were tracked before are trained again.
        environ: The process's environment variables, where trackers' own settings are.
    """

    directory: Path
    name: str
    config: Mapping[str, Any]
    step: int
    environ: MutableMapping[str, str] = field(default_factory=dict, repr=False)

    def remembered(self, tracker: str, make: Callable[[], str]) -> str:
        """The id that this tracker's run got in its first life, which is the only one to call `make`."""
        path = RunDirectory(self.directory).trackers
        ids = _known_ids(path)
        if tracker not in ids:
            ids[tracker] = make()
            replace_text(path, json.dumps(ids) + "\n")
        return ids[tracker]


def _known_ids(path: Path) -> dict[str, str]:
    """Tracker -> id. Empty where the file is damaged: a curve in two parts is better than a run that does not start."""
    try:
        ids = json.loads(read_regular(path)) if path.exists() else {}
        if isinstance(ids, dict) and all(isinstance(each, str) for each in ids.values()):
            return ids
        problem = "it holds something else"
    except (OSError, ValueError, RecursionError) as error:
        problem = str(error)
    warn(f"{path} must say under which ids trackers know this run, but does not ({problem}): they begin new ones.")
    return {}


class Tracker(Protocol):
    """Something that keeps or shows a run's curves. Each life makes a new one."""

    def open(self, run: TrackedRun) -> None:
        """Begin, or go on with, a run."""
        ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take the newest values."""
        ...

    def close(self) -> None:
        """Write down the rest."""
        ...


class TensorBoard:
    """Event files in tensorboard/; steps that are trained again replace what was there."""

    def open(self, run: TrackedRun) -> None:
        """Begin a file that continues those of earlier lives."""
        from torch.utils.tensorboard import SummaryWriter  # deferred: importing it takes half a second

        directory = RunDirectory(run.directory).tensorboard
        make_directory(directory)
        self._writer = SummaryWriter(str(directory), purge_step=run.step + 1)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """One scalar per name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write down the rest."""
        self._writer.close()


class Csv:
    """metrics.csv: a row for each time something was shown, a column for each name."""

    def open(self, run: TrackedRun) -> None:
        """Keep the rows up to this life's first step."""
        self.path = RunDirectory(run.directory).metrics_csv
        self._columns = ["step"]
        rows: list[dict[str, str]] = []
        if self.path.exists():
            reader = self._reader()
            rows = [row for row in reader if (row["step"] or "").isdigit() and int(row["step"]) <= run.step]
            self._columns = list(reader.fieldnames or self._columns)
        self._write(rows)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """One row; a new name becomes the last column."""
        new = [name for name in values if name not in self._columns]
        if new:
            rows = list(self._reader())
            self._columns += new
            self._write(rows)
        with io.TextIOWrapper(open_to_append(self.path), newline="") as file:
            csv.DictWriter(file, self._columns).writerow({"step": step, **values})

    def close(self) -> None:
        """Nothing is left to write: `log` has written every row."""

    def _reader(self) -> csv.DictReader[str]:
        return csv.DictReader(io.StringIO(read_regular(self.path).decode(), newline=""))

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(rows)
        replace_text(self.path, text.getvalue())


class WeightsAndBiases:
    """A W&B run, offline unless WANDB_MODE says otherwise; `wandb sync` sends all lives to one run.

    An offline life is a folder of its own in wandb/ (wandb 0.17-0.31), under the same id. Curves are drawn over the
    value `step`, because W&B's own counter refuses to go back to where a crashed run resumes. A SIGTERM to a whole job
    ends wandb's service as well: what is logged after it is missing from the curves, not from metrics.jsonl.
    """

    def open(self, run: TrackedRun) -> None:
        """Begin or continue the run."""
        make_directory(RunDirectory(run.directory).wandb)
        wandb = importlib.import_module("wandb")
        mode = run.environ.get("WANDB_MODE", "offline")
        with _masked_arguments():
            self._run = wandb.init(
                dir=run.directory,
                project=run.name,
                id=run.remembered("wandb", lambda: uuid4().hex[:12]),
                resume=None if mode == "offline" else "allow",  # offline there is no server to ask for the run
                mode=mode,
                config=dict(run.config),
                settings=wandb.Settings(console="off", silent=True),  # hpc keeps what is printed; W&B says nothing
            )
        self._run.define_metric("*", step_metric="step")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """One record."""
        self._run.log({**values, "step": step})

    def close(self) -> None:
        """End this life's part."""
        self._run.finish()


@contextmanager
def _masked_arguments() -> Iterator[None]:
    """W&B keeps the command line of the program beside the run (wandb 0.17-0.31)."""
    before = sys.argv[:]
    sys.argv[:] = map(masked_override, before)
    try:
        yield
    finally:
        sys.argv[:] = before


class Mlflow:
    """An MLflow run: on the server MLFLOW_TRACKING_URI names, else in files in the point's mlruns/."""

    def open(self, run: TrackedRun) -> None:
        """Begin the run, or go on with it."""
        uri = run.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            make_directory(RunDirectory(run.directory).mlruns)
            run.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow 3.7 and later refuse files without it
        self._client = importlib.import_module("mlflow").MlflowClient(
            uri or RunDirectory(run.directory).mlruns.as_uri()
        )
        self._id = run.remembered("mlflow", lambda: self._create(run))
        self._client.update_run(self._id, status="RUNNING")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """One point of every curve."""
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self) -> None:
        """A requeued life opens the run again."""
        self._client.set_terminated(self._id)

    def _create(self, run: TrackedRun) -> str:
        experiment = self._client.get_experiment_by_name(run.name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(run.name)
        created = str(self._client.create_run(number, run_name=run.directory.name).info.run_id)
        for name, value in leaves(run.config):
            if value != {}:
                self._client.log_param(created, name, value)
        return created


TRACKERS: dict[str, Callable[[], Tracker]] = {
    "tensorboard": TensorBoard,
    "csv": Csv,
    "wandb": WeightsAndBiases,
    "mlflow": Mlflow,
}


class Trackers:
    """All trackers of this life. One that fails is left out from then on: a run must not end because a server does.

    Args:
        trackers: Those to open.
        run: What they are told.
    """

    def __init__(self, trackers: Sequence[Tracker], run: TrackedRun) -> None:
        self._open = list(trackers)
        self._each("open", run)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Give every tracker the newest values."""
        self._each("log", values, step)

    def close(self) -> None:
        """Let every tracker write down the rest."""
        self._each("close")

    def _each(self, method: str, *args: Any) -> None:
        for tracker in tuple(self._open):
            try:
                with narrow_umask():
                    getattr(tracker, method)(*args)
            except Exception as error:  # whatever it is, training does not depend on it
                self._open.remove(tracker)
                what = f"{type(error).__name__}: {error}"
                warn(f"{type(tracker).__name__} failed to {method}; training goes on without it ({what}).", error)


def make_trackers(names: Sequence[str]) -> list[Tracker]:
    """Trackers by name or import path.

    Raises:
        ConfigurationError: There is no tracker of that name, or its package is not installed.
    """
    return [_make(name) for name in names]


def _make(name: str) -> Tracker:
    if name in ("wandb", "mlflow") and importlib.util.find_spec(name) is None:
        raise ConfigurationError(
            f"runtime.trackers=[{name}] needs a package that is not installed: pip install 'hpc[{name}]'."
        )
    if name in TRACKERS:
        return TRACKERS[name]()
    module, _, attribute = name.rpartition(".")
    try:
        tracker: Tracker = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"runtime.trackers must hold {', '.join(TRACKERS)} or importable module.Class names, but {name} is "
            f"neither ({error}): correct it, or put its directory on PYTHONPATH."
        ) from error
    return tracker
