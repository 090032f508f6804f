"""What may be configured: the typed schema of conf/.

Plain dataclasses, not frozen ones: OmegaConf makes a frozen dataclass read-only and then refuses every override.
A file in conf/ is data laid over these defaults; a key that is not here is refused when the config is composed.
What an option may be stands beside it, as its metadata.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from hpc.config.limits import above, at_least, at_most, names_a_file, one_of, only_of, without
from hpc.paths import default_run_dir

CONTAINER_RUNTIMES = ("apptainer", "pyxis", "podman", "docker", "charliecloud")
NO_WORD = " \t\"'\\`$;&|<>(){}*?!,"
"""What a shell, or a runtime for containers, would not take as a part of one word."""
TRACKERS = ("tensorboard", "csv", "wandb", "mlflow")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")

MOST, MOST_MINUTES, MOST_GRACE_SECONDS = 2**31 - 1, 2**31 // 60 - 1, 2**16 - 1
"""Above them Slurm counts from 0 again or takes no limit, in silence (sbatch 22.05); --signal says no."""


@dataclass
class Hardware:
    """How much: what one job asks of the scheduler. All counts are per job or per node, never per sweep."""

    name: str = "custom"
    nodes: int = field(default=1, metadata=at_least(1) | at_most(MOST))
    tasks_per_node: int | None = field(default=None, metadata=at_least(1) | at_most(MOST))
    """Ranks on each node, one per GPU where there are GPUs; None takes whatever world the launcher brings."""
    gpus_per_node: int = field(default=0, metadata=at_least(0) | at_most(MOST))
    gpu_type: str | None = field(default=None, metadata=without("\\"))
    """As the site's `--gres` spells it: a100, h100; a slice of one is a type, too: 1g.5gb."""
    cpus_per_task: int | None = field(default=None, metadata=at_least(1) | at_most(MOST))
    """None leaves the scheduler's default."""
    memory_gb: int | None = field(default=None, metadata=at_least(0) | at_most(MOST))
    """Per node; 0 asks for all of it, None leaves the scheduler's default."""
    time_limit_minutes: int = field(default=60, metadata=at_least(1) | at_most(MOST_MINUTES))
    """Of one attempt, here as in Slurm: it stops cluster.grace_seconds before, saves, and goes on in another one."""
    source: str = ""
    """Where the numbers come from."""

    @property
    def task_count(self) -> int:
        """Ranks in the whole job."""
        return self.nodes * (self.tasks_per_node or 1)


@dataclass
class OptionRule:
    """What a site says about one option of sbatch or srun."""

    why: str = field(default=MISSING, metadata=without(""))
    """The rule in words, as they follow a colon: "every job is charged to a project"."""
    matches: str | None = field(default=None, metadata=without(""))
    """A regular expression for the whole value: what is required must match it, only what matches it is forbidden."""


@dataclass
class SiteLimit:
    """The most that a job may ask for in one partition or QOS; null is no limit.

    Of several rows for one place the smallest that holds the job's nodes counts, so that large jobs may run longer.
    """

    partition: str | None = None
    """null is every partition that no other row names."""
    qos: str | None = None
    """null is every QOS that no other row names."""
    nodes: int | None = field(default=None, metadata=at_least(1))
    time_limit_minutes: int | None = field(default=None, metadata=at_least(1))
    submitted_jobs: int | None = field(default=None, metadata=at_least(1))
    """Of one user, waiting or running; every task of an array is one."""


@dataclass
class Cluster:
    """Where: the scheduler and what this site wants to be told."""

    site: str = ""
    """What people call it; sentences about its rules begin with it."""
    source: str = ""
    """Where its rules are written down."""
    checked_on: str = ""
    """The date of the copy of `source` that was read, as 2026-11-23: the policies of sites change."""

    scheduler: str = field(default="auto", metadata=one_of("auto", "local", "slurm"))
    """slurm, local, or auto: slurm where sbatch is on PATH, else local."""
    partition: str | None = field(default=None, metadata=without("\\"))
    """One, or several with commas between them: the job runs where it can start first."""
    account: str | None = field(default=None, metadata=without("\\"))
    qos: str | None = field(default=None, metadata=without("\\"))
    constraint: str | None = field(default=None, metadata=without("\\"))
    gres: str | None = field(default="gpu:{gpu_type}:{gpus_per_node}", metadata=without("\\"))
    """How this site spells GPUs; `gpu:{gpus_per_node}` where types have no name, null where sbatch.gpus-per-node or its
    like asks for them instead."""
    sbatch: dict[str, Any] = field(default_factory=dict)
    """More sbatch options, without dashes: {reservation: friday, exclusive: true}; false or null leaves one out."""
    srun: list[str] = field(default_factory=list)
    """Further options of srun, each of them one whole word: ["--cpu-bind=cores"]."""
    setup: list[str] = field(default_factory=list)
    """Shell lines that run before srun: module loads, ulimits."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Exported before srun: NCCL_SOCKET_IFNAME and its like. true and false are these words; 1.10 needs quotes."""
    grace_seconds: int | None = field(default=None, metadata=at_least(1) | at_most(MOST_GRACE_SECONDS))
    """How long before the time limit the run stops and saves; must exceed one step plus one save. None: two minutes, or
    half of a short time limit, and longer where the run's own steps and saves are measured to need it."""
    max_parallel_points: int = field(default=256, metadata=at_least(1))
    """At most this many points of a sweep run at once."""
    container: str | None = field(default=None, metadata=one_of(None, *CONTAINER_RUNTIMES))
    """Which runtime for containers this site has: container.image alone is enough then."""
    required: dict[str, OptionRule] = field(default_factory=dict)
    """Options that this site must be told, by their names in sbatch: {account: {why: every job is charged}}."""
    forbidden: dict[str, OptionRule] = field(default_factory=dict)
    """Options that this site refuses."""
    limits: list[SiteLimit] = field(default_factory=list)
    """What the site says; what the controller knows is asked as well."""
    run_dir_writers: str = field(default="owner", metadata=one_of("owner", "group", "anyone"))
    """Who may write into run_dir, or into a directory above it, and so run code as you: nobody but you; its group, too,
    as in a project's shared directory; anyone, as where a file system has no users."""


@dataclass
class Container:
    """In what: an image that the ranks run in. The batch script, and what it asks of Slurm, stay outside."""

    runtime: str = field(default="auto", metadata=one_of("auto", "none", *CONTAINER_RUNTIMES))
    """Who starts the container on the nodes; auto: none without an image, cluster.container with one."""
    image: str | None = field(default=None, metadata=without(NO_WORD))
    """A file or directory that all nodes see, or a name in a registry; None with a runtime: pytorch/pytorch with the
    installed version of torch."""
    python: str = field(default="python3", metadata=without(NO_WORD))
    """The interpreter inside, which imports hpc and what the training function needs."""
    mounts: list[str] = field(default_factory=list)
    """What else is seen inside: SOURCE, SOURCE:INSIDE or SOURCE:INSIDE:ro. The run directory, the working directory and
    /tmp always are."""
    gpus: str = field(default="auto", metadata=one_of("auto", "nvidia", "amd", "none"))
    """Whose GPUs are made visible inside; auto: AMD's where hardware.gpu_type is called mi250 or the like, else
    NVIDIA's, and none where no GPUs are asked for."""
    options: list[str] = field(default_factory=list)
    """Further options of the runtime's own command, or for pyxis of srun: ["--fakeroot"]."""


@dataclass
class StrategyOptions:
    """How: the way ranks share the work of one step."""

    name: str = field(default="ddp", metadata=one_of("ddp", "fsdp", "deepspeed", "single"))
    """ddp, fsdp, deepspeed, or single where more than one rank would be a mistake."""
    precision: str = field(default="fp32", metadata=one_of("fp32", "bf16", "fp16"))
    """fp32, bf16 or fp16."""
    accumulation_steps: int = field(default=1, metadata=at_least(1))
    """Micro-batches per optimizer step on every rank."""
    blocks: list[str] = field(default_factory=list)
    """Class names of layers that are sharded, recomputed or compiled one by one; empty takes those in ModuleLists."""
    min_block_parameters: int | None = field(default=None, metadata=at_least(1))
    """Blocks are the innermost modules with at least this many parameters; instead of class names."""
    find_unused_parameters: bool = field(default=False, metadata=only_of("ddp"))
    """ddp: look for parameters that a step does not use, as with branches taken in turn; walks over the graph."""
    shard_size: int | None = field(default=None, metadata=at_least(1) | only_of("fsdp"))
    """fsdp: ranks that share one copy of the model; more ranks than these hold further copies. None: all ranks."""
    reshard_after_forward: bool = field(default=True, metadata=only_of("fsdp"))
    """fsdp: free a block's gathered parameters until its backward pass; false is faster and takes more memory."""
    cpu_offload: bool = field(default=False, metadata=only_of("fsdp"))
    """fsdp: parameters, gradients and optimizer state live in host memory."""
    activation_checkpointing: bool = False
    """Compute the blocks' activations again in the backward pass instead of keeping them."""
    compile: bool | str = field(default=False, metadata=one_of(False, True, *COMPILE_MODES))
    """True, or a mode of torch.compile: default, reduce-overhead, max-autotune."""
    compile_backend: str = field(default="inductor", metadata=without(""))
    """As torch.compile names them; eager and aot_eager need no C++ compiler."""
    zero_stage: int | None = field(default=None, metadata=one_of(None, 1, 2, 3) | only_of("deepspeed"))
    """deepspeed: 1 shards optimizer state, 2 gradients too, 3 parameters too; None: as deepspeed_config says, or 2."""
    deepspeed_config: str | None = field(default=None, metadata=only_of("deepspeed") | names_a_file())
    """deepspeed: a DeepSpeed JSON file; it must not contradict this section."""


@dataclass
class Profile:
    """A few steps under torch.profiler: a trace per rank in the run directory's profile/."""

    start_step: int | None = field(default=None, metadata=at_least(1))
    """The first of them, counted from 1; None profiles nothing."""
    steps: int = field(default=3, metadata=at_least(1))


@dataclass
class RuntimeOptions:
    """What happens around the user's loop."""

    launcher: str = "auto"
    """Whom to believe about rank and world size: auto, none, or a name from `hpc world`; wins over HPC_LAUNCHER."""
    device: str = field(default="auto", metadata=one_of("auto", "cuda", "xla", "mps", "cpu"))
    """auto takes the first that is here of cuda, xla, mps and cpu; or one of these by name."""
    deterministic: bool = False
    """Deterministic kernels, and gradient buckets that stay as they are: a resumed run is bitwise equal."""
    log_every_steps: int = field(default=10, metadata=at_least(1))
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where curves go besides metrics.jsonl: tensorboard, csv, wandb, mlflow, or module.Class of your own."""
    must_be_finite: list[str] = field(default_factory=lambda: ["loss", "grad_norm"])
    """Logged values that end the run with code 79 when they are not finite; nothing is saved from then on."""
    profile: Profile = field(default_factory=Profile)
    interface: str | None = None
    """Interface, address or network (10.1.0.0/16) ranks find each other through; None leaves it to routing."""
    host_suffix: str = ""
    """Appended to node names: `i` on systems whose fabric has its own names."""
    rendezvous_timeout_seconds: int = field(default=300, metadata=at_least(1))
    collective_timeout_seconds: int = field(default=1800, metadata=at_least(1))
    hang_seconds: float | None = field(default=None, metadata=at_least(0))
    """End an attempt with code 70 when no step was taken for so long; None learns it from the run's own steps, and 0
    lets a run hang until its time limit."""
    slow_rank_factor: float = field(default=1.5, metadata=at_least(0))
    """Tell of a rank that needs so many times as long as the others for its own part of a step; 0 tells of none."""
    max_lives_without_progress: int = field(default=5, metadata=at_least(1))
    """After this many lives in a row without a new checkpoint, the job ends with code 76."""


@dataclass
class CheckpointOptions:
    """When to save, and how many checkpoints stay."""

    every_steps: int | None = field(default=None, metadata=at_least(1))
    every_minutes: float | None = field(default=None, metadata=above(0))
    """Where neither is given, the interval follows from what a save costs and how often runs fail (Daly 2006)."""
    mean_hours_between_failures: float | None = field(default=None, metadata=above(0))
    """Of this job on this cluster; None estimates it from the run's own journal."""
    asynchronous: bool = True
    """Copy at the step boundary and write behind training; takes the state's size in host memory once more."""
    on_error: str = field(default="stop", metadata=one_of("stop", "continue"))
    """When a periodic save fails: stop with code 74, or continue without it. The last save of a life must succeed."""
    keep: int = field(default=2, metadata=at_least(1))
    """This many checkpoints stay, the newest ones; the last one that was read back whole is never deleted."""
    keep_every_steps: int | None = field(default=None, metadata=at_least(1))
    """Checkpoints of steps that this divides stay for ever."""
    best_metric: str | None = field(default=None, metadata=without(""))
    """The checkpoint with the best value of this logged metric stays."""
    best_mode: str = field(default="min", metadata=one_of("min", "max"))
    """min or max."""


@dataclass
class Launch:
    """What `-m` does with the points."""

    dry_run: bool = False
    """Print what would be sent, and send nothing."""
    detach: bool = False
    """On this machine: return at once, and let a process without a terminal run the points. Slurm always does so."""
    wait: bool = False
    """Wait until every point has ended, as sweepers must that choose points by the values of others (Optuna)."""
    max_parallel: int | None = field(default=None, metadata=at_least(1))
    """At most this many points of the sweep run at once; None: cluster.max_parallel_points in Slurm, and on this
    machine as many as its CPUs, memory and GPUs suffice for."""
    per_job: int = field(default=1, metadata=at_least(1))
    """So many points share a job of Slurm, on one node: each has the hardware that it asks for, and an end of its own.
    On this machine points run side by side where they fit, whatever this is."""
    max_points: int = field(default=100_000, metadata=at_least(1))
    """A sweep of more points is refused before any of them is composed; ten thousand take about 100 MB of memory."""
    max_crashes: int = field(default=3, metadata=at_least(1))
    """A run that loses a rank or a node goes on by itself, until it did so often without a new checkpoint."""
    retry_exceptions: bool = False
    """Whether a run whose program fails with an exception goes on likewise; never where memory was short."""
    exclude_failed_nodes: bool = True
    """Slurm: whether the next attempt does without a node on which a rank was lost, where others are left."""
    ask_above_gpu_hours: float = field(default=10_000.0, metadata=above(0))
    """A sweep that may use more, when all points run until their time limits, is sent when somebody has said yes."""
    yes: bool = False
    """Says so beforehand."""
    force: bool = False
    """A command that is typed once more begins all of its points anew; what they had is moved to earlier/. Else those
    are submitted that are missing or have failed."""
    snapshot: bool = True
    """Jobs run the code as it is now; false: as it lies there whenever one of their lives starts."""
    snapshot_max_megabytes: int = field(default=200, metadata=at_least(1))
    """The code of a submission may be so large; above it, the largest folders are named and nothing is submitted."""
    snapshot_max_files: int = field(default=20_000, metadata=at_least(1))
    """Likewise, in files."""


@dataclass
class Experiment:
    """What: the training function."""

    name: str = field(default="experiment", metadata=without(r"/\%"))
    """What squeue shows; part of the default run_dir."""
    target: str = MISSING
    """module.function; called with the whole config."""


@dataclass
class Settings:
    """Every part of a config that hpc reads; the rest belongs to the training function."""

    hardware: Hardware = field(default_factory=Hardware)
    cluster: Cluster = field(default_factory=Cluster)
    container: Container = field(default_factory=Container)
    strategy: StrategyOptions = field(default_factory=StrategyOptions)
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    launch: Launch = field(default_factory=Launch)
    experiment: Experiment = field(default_factory=Experiment)
    run_dir: str = field(default_factory=default_run_dir)
    """Where everything about the run lies; below the directory the command is typed in, `~` is the home directory."""
    seed: int = field(default=0, metadata=at_least(0))
