"""What may be configured: the typed schema of conf/, and how a composed config becomes values.

Plain dataclasses, not frozen ones: OmegaConf makes a frozen dataclass read-only and then refuses every override.
A file in conf/ is data laid over these defaults; a key that is not here is refused when the config is composed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hpc.errors import ConfigurationError


@dataclass
class Hardware:
    """How much: what one job asks of the scheduler. All counts are per job or per node, never per sweep."""

    name: str = "custom"
    nodes: int = 1
    tasks_per_node: int | None = None
    """Ranks on each node, one per GPU where there are GPUs; None takes whatever world the launcher brings."""
    gpus_per_node: int = 0
    gpu_type: str | None = None
    """As the site's `--gres` spells it: a100, h100."""
    cpus_per_task: int | None = None
    """None leaves the scheduler's default."""
    memory_gb: int | None = None
    """Per node; 0 asks for all of it, None leaves the scheduler's default."""
    time_limit_minutes: int = 60
    source: str = ""
    """Where the numbers come from."""

    @property
    def task_count(self) -> int:
        """Ranks in the whole job."""
        return self.nodes * (self.tasks_per_node or 1)


@dataclass
class Cluster:
    """Where: the scheduler and what this site wants to be told."""

    scheduler: str = "auto"
    """slurm, local, or auto: slurm where sbatch is on PATH, else local."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str = "gpu:{gpu_type}:{gpus_per_node}"
    """How this site spells GPUs; `gpu:{gpus_per_node}` where types have no name."""
    sbatch: dict[str, Any] = field(default_factory=dict)
    """Further sbatch options without their dashes: {reservation: friday, exclusive: true}."""
    srun: list[str] = field(default_factory=list)
    """Further srun arguments: ["--cpu-bind=cores"]."""
    setup: list[str] = field(default_factory=list)
    """Shell lines that run before srun: module loads, ulimits."""
    environment: dict[str, str] = field(default_factory=dict)
    """Exported before srun: NCCL_SOCKET_IFNAME and its like."""
    grace_seconds: int = 120
    """How long before the time limit the run stops and saves; must exceed one step plus one save."""
    max_parallel_points: int = 256
    """At most this many points of a sweep run at once."""


@dataclass
class Strategy:
    """How: the way ranks share the work of one step."""

    name: str = "ddp"
    """ddp, or single where more than one rank would be a mistake."""
    precision: str = "fp32"
    """fp32, bf16 or fp16."""
    accumulation_steps: int = 1
    """Micro-batches per optimizer step on every rank."""


@dataclass
class RuntimeOptions:
    """What happens around the user's loop."""

    launcher: str = "auto"
    """Whom to believe about rank and world size: auto, none, or a name from `hpc world`; wins over HPC_LAUNCHER."""
    device: str = "auto"
    """auto takes cuda, then mps, then cpu; or one of these by name."""
    deterministic: bool = False
    """Deterministic kernels, and gradient buckets that stay as they are: a resumed run is bitwise equal."""
    log_every_steps: int = 10
    interface: str | None = None
    """Interface, address or network (10.1.0.0/16) ranks find each other through; None leaves it to routing."""
    host_suffix: str = ""
    """Appended to node names: `i` on systems whose fabric has its own names."""
    rendezvous_timeout_seconds: int = 300
    collective_timeout_seconds: int = 1800
    max_lives_without_progress: int = 5
    """So many lives in a row without a new checkpoint end the job with code 76."""


@dataclass
class CheckpointOptions:
    """When to save, and how many checkpoints stay."""

    every_steps: int = 200
    keep: int = 2
    """The newest so many stay; the last one that verified is never deleted."""


@dataclass
class Launch:
    """What `-m` does with the points."""

    dry_run: bool = False
    """Print what would be sent, and send nothing."""


@dataclass
class Experiment:
    """What: the training function."""

    name: str = "experiment"
    target: str = MISSING
    """module.function; called with the whole config."""


@dataclass
class Settings:
    """Every part of a config that hpc reads; the rest belongs to the training function."""

    hardware: Hardware = field(default_factory=Hardware)
    cluster: Cluster = field(default_factory=Cluster)
    strategy: Strategy = field(default_factory=Strategy)
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    launch: Launch = field(default_factory=Launch)
    experiment: Experiment = field(default_factory=Experiment)
    run_dir: str = "runs/run"
    seed: int = 0


CHOICES = {
    "cluster.scheduler": ("auto", "local", "slurm"),
    "strategy.name": ("ddp", "single"),
    "strategy.precision": ("fp32", "bf16", "fp16"),
    "runtime.device": ("auto", "cuda", "mps", "cpu"),
}
AT_LEAST_ONE = (
    "hardware.nodes",
    "hardware.tasks_per_node",
    "hardware.time_limit_minutes",
    "cluster.grace_seconds",
    "cluster.max_parallel_points",
    "strategy.accumulation_steps",
    "runtime.log_every_steps",
    "runtime.rendezvous_timeout_seconds",
    "runtime.collective_timeout_seconds",
    "runtime.max_lives_without_progress",
    "checkpoint.every_steps",
    "checkpoint.keep",
)


def settings_of(config: DictConfig | dict[str, Any]) -> Settings:
    """Read the parts hpc owns out of a composed config, filling in defaults.

    Args:
        config: A composed config or a plain mapping; keys that are not hpc's are ignored.

    Raises:
        ConfigurationError: A value has the wrong type, is out of its range, or contradicts another.
    """
    schema = OmegaConf.structured(Settings)
    given = config if isinstance(config, DictConfig) else OmegaConf.create(config)
    try:
        owned = OmegaConf.masked_copy(given, [str(key) for key in schema if key in given])
        merged = OmegaConf.merge(schema, owned)
        _check_values(merged)
        settings = _to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigurationError(sentence(error)) from error
    _check_hardware(settings.hardware)
    return settings


def sentence(error: Exception) -> str:
    """The first line of OmegaConf's or Hydra's message, with the key it is about."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = getattr(error, "full_key", None)
    text = lines[0].rstrip(".") if lines else type(error).__name__
    return f"{text} (at {key})." if key and str(key) not in text else f"{text}."


def register_schema() -> None:
    """Make `hpc_schema` available to every defaults list, so that overrides are typed when they are composed."""
    from hydra.core.config_store import ConfigStore  # deferred: `import hpc` stays light

    sections = {
        "hardware": Hardware,
        "cluster": Cluster,
        "strategy": Strategy,
        "runtime": RuntimeOptions,
        "checkpoint": CheckpointOptions,
        "launch": Launch,
        "experiment": Experiment,
    }
    ConfigStore.instance().store(name="hpc_schema", node=sections, provider="hpc")


def _to_object(merged: Any) -> Settings:
    if OmegaConf.is_missing(merged.experiment, "target"):
        merged.experiment.target = ""
    settings = OmegaConf.to_object(merged)
    if not isinstance(settings, Settings):
        raise ConfigurationError(f"The config must be a mapping, but is {type(settings).__name__}.")
    return settings


def _check_values(merged: Any) -> None:
    for key, allowed in CHOICES.items():
        value = OmegaConf.select(merged, key)
        if value not in allowed:
            raise ConfigurationError(f"{key} must be one of {', '.join(allowed)}, but is {value}.")
    for key in AT_LEAST_ONE:
        value = OmegaConf.select(merged, key)
        if value is not None and value < 1:
            raise ConfigurationError(f"{key} must be at least 1, but is {value}.")


def _check_hardware(hardware: Hardware) -> None:
    if hardware.gpus_per_node < 0:
        raise ConfigurationError(f"hardware.gpus_per_node must be at least 0, but is {hardware.gpus_per_node}.")
    if 0 < hardware.gpus_per_node < (hardware.tasks_per_node or 1):
        raise ConfigurationError(
            f"hardware.tasks_per_node must be at most hardware.gpus_per_node ({hardware.gpus_per_node}), "
            f"so that no two ranks share a GPU, but is {hardware.tasks_per_node}."
        )
