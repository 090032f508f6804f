"""What lies in a run directory, and under which name? Every name is here, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpc.errors import ConfigurationError


@dataclass(frozen=True)
class RunDirectory:
    """The directory of one point: of a single run, or of one point of a sweep.

    Args:
        path: Where it is. Nothing is created by naming it.
    """

    path: Path

    @property
    def journal(self) -> Path:
        """Holds a file of events for each process that had something to tell; see `hpc.run.journal`."""
        return self.path / "journal"

    @property
    def old_journal(self) -> Path:
        """The one file that held the events of all attempts before each process had a file of its own."""
        return self.path / "journal.jsonl"

    @property
    def failures(self) -> Path:
        """Holds a report, and its text, for each attempt that failed; see `hpc.attempt.report`."""
        return self.path / "failures"

    @property
    def logs(self) -> Path:
        """Holds what each rank logged, over all attempts: rank_0.log and so on."""
        return self.path / "logs"

    @property
    def finished(self) -> Path:
        """Exists once the training function has returned; holds its value. See `hpc.run.result`."""
        return self.path / "finished.json"

    @property
    def checkpoints(self) -> Path:
        """Holds step_00001200/ and its like; see `hpc.checkpoint.store`."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """What was logged in each step, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def progress(self) -> Path:
        """How far the run is while it trains, for those who look on. See `hpc.run.progress`."""
        return self.path / "progress.json"

    @property
    def metrics_csv(self) -> Path:
        """What was shown, where runtime.trackers has csv."""
        return self.path / "metrics.csv"

    @property
    def tensorboard(self) -> Path:
        """Event files, where runtime.trackers has tensorboard."""
        return self.path / "tensorboard"

    @property
    def mlruns(self) -> Path:
        """MLflow's files, where runtime.trackers has mlflow and no server is named."""
        return self.path / "mlruns"

    @property
    def wandb(self) -> Path:
        """W&B's folders, where runtime.trackers has wandb."""
        return self.path / "wandb"

    @property
    def trackers(self) -> Path:
        """Under which ids trackers know this run."""
        return self.path / "trackers.json"

    @property
    def profile(self) -> Path:
        """Holds the traces of runtime.profile, a file per rank."""
        return self.path / "profile"

    @property
    def pulses(self) -> Path:
        """Holds what each rank is doing, a file for each, which the next attempt replaces. See `hpc.run.pulse`."""
        return self.path / "pulses"

    @property
    def hangs(self) -> Path:
        """Holds the stacks of the ranks of a node, a file for each node of each attempt that hung."""
        return self.path / "hangs"

    @property
    def stop(self) -> Path:
        """Made by a person who wants the run to save and end; rank 0 takes it away. See `hpc.stop.files`."""
        return self.path / "stop"

    @property
    def save(self) -> Path:
        """Made by a person who wants a checkpoint soon; rank 0 takes it away."""
        return self.path / "save"

    def failure(self, attempt: str) -> Path:
        """The report of one attempt that failed."""
        return self.failures / f"{attempt}.json"

    def pulse(self, rank: int) -> Path:
        """What one rank is doing."""
        return self.pulses / f"rank_{rank}.txt"

    def hang(self, attempt: str, node_rank: int) -> Path:
        """The stacks of one node's ranks in an attempt that hung."""
        return self.hangs / f"{attempt}.node_{node_rank}.txt"

    def log(self, rank: int) -> Path:
        """What one rank logged."""
        return self.logs / f"rank_{rank}.log"


TAKEN_NAMES = frozenset(
    getattr(RunDirectory(Path()), name).name for name, kind in vars(RunDirectory).items() if isinstance(kind, property)
)
"""What a fold or a phase, which gets a directory of its own below the run's, cannot be called."""


def not_writable(path: Path, error: OSError) -> ConfigurationError:
    """What is raised where something below run_dir could not be made or written."""
    return ConfigurationError(f"run_dir must be a writable directory, but {path} is not: {error.strerror}.")
