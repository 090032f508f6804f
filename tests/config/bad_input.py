"""Command lines and files that cannot be, and what the one sentence about each must name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

CONFIG = """\
defaults:
  - hpc_schema
  - hardware: laptop
  - cluster: auto
  - strategy: ddp
  - _self_
  - override hydra/launcher: hpc
  - override hydra/sweeper: hpc
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
experiment: {name: mine, target: job.train}
hydra: {output_subdir: null, run: {dir: .}, sweep: {dir: "${run_dir}"}}
data: {batch_size: 4}
steps: 3
"""
JOB = "def train(cfg):\n    raise SystemExit('it trained')\n"
HERE = ("--config-path", "conf", "run_dir=out")
SUBMIT = (*HERE, "-m", "hardware=cpu", "cluster.partition=cpu")


@dataclass(frozen=True)
class Bad:
    """One command.

    Args:
        arguments: Of `hpc`.
        words: What its sentence must name, in any order.
        files: Contents by path; text or bytes. A path that ends in `/` is an empty directory.
        code: Its exit code.
    """

    arguments: tuple[str, ...]
    words: tuple[str, ...]
    files: dict[str, str | bytes] = field(default_factory=dict)
    code: int = 78


OVERRIDES: tuple[tuple[str, str], ...] = (
    # numbers out of their range
    ("hardware.nodes=0", "hardware.nodes"),
    ("hardware.nodes=-3", "hardware.nodes"),
    ("hardware.tasks_per_node=0", "hardware.tasks_per_node"),
    ("hardware.gpus_per_node=-1", "hardware.gpus_per_node"),
    ("hardware.cpus_per_task=0", "hardware.cpus_per_task"),
    ("hardware.memory_gb=-5", "hardware.memory_gb"),
    ("hardware.time_limit_minutes=0", "hardware.time_limit_minutes"),
    ("hardware.time_limit_minutes=-1", "hardware.time_limit_minutes"),
    ("cluster.grace_seconds=3600", "cluster.grace_seconds"),
    ("cluster.grace_seconds=0", "cluster.grace_seconds"),
    ("cluster.grace_seconds=65536", "cluster.grace_seconds must be at most 65535"),
    ("hardware.nodes=4294967296", "hardware.nodes"),
    ("hardware.memory_gb=99999999999999999999", "hardware.memory_gb"),
    ("hardware.time_limit_minutes=71582788", "hardware.time_limit_minutes"),
    ("cluster.max_parallel_points=0", "cluster.max_parallel_points"),
    ("strategy.accumulation_steps=0", "strategy.accumulation_steps"),
    ("strategy.min_block_parameters=0", "strategy.min_block_parameters"),
    ("strategy.shard_size=-1", "strategy.shard_size"),
    ("runtime.log_every_steps=0", "runtime.log_every_steps"),
    ("runtime.profile.start_step=0", "runtime.profile.start_step"),
    ("runtime.profile.steps=0", "runtime.profile.steps"),
    ("runtime.rendezvous_timeout_seconds=0", "runtime.rendezvous_timeout_seconds"),
    ("runtime.collective_timeout_seconds=-1", "runtime.collective_timeout_seconds"),
    ("runtime.max_lives_without_progress=0", "runtime.max_lives_without_progress"),
    ("checkpoint.every_steps=0", "checkpoint.every_steps"),
    ("checkpoint.every_minutes=0", "checkpoint.every_minutes"),
    ("checkpoint.every_minutes=-2.5", "checkpoint.every_minutes"),
    ("checkpoint.every_minutes=nan", "checkpoint.every_minutes"),
    ("checkpoint.every_minutes=inf", "checkpoint.every_minutes"),
    ("checkpoint.mean_hours_between_failures=0", "checkpoint.mean_hours_between_failures"),
    ("checkpoint.keep=0", "checkpoint.keep"),
    ("checkpoint.keep_every_steps=0", "checkpoint.keep_every_steps"),
    ("seed=-1", "seed"),
    ("steps=-1", "steps"),
    # of another type
    ("hardware.nodes=two", "hardware.nodes"),
    ("hardware.nodes=1.5", "hardware.nodes"),
    ("hardware.nodes=[1]", "hardware.nodes"),
    ("hardware.nodes=null", "hardware.nodes"),
    ("hardware.nodes={a:1}", "hardware.nodes"),
    ("hardware.memory_gb=lots", "hardware.memory_gb"),
    ("hardware.time_limit_minutes=1-00:00:00", "hardware.time_limit_minutes"),
    ("cluster.srun=--cpu-bind=cores", "cluster.srun"),
    ("cluster.setup=module", "cluster.setup"),
    ("cluster.environment=[A]", "cluster.environment"),
    ("cluster.sbatch=exclusive", "cluster.sbatch"),
    ("cluster.partition=[a]", "cluster.partition"),
    ("strategy.cpu_offload=maybe", "strategy.cpu_offload"),
    ("strategy.blocks=GPT2Block", "strategy.blocks"),
    ("strategy.compile=[1]", "strategy.compile"),
    ("runtime.trackers=tensorboard", "runtime.trackers"),
    ("runtime.trackers=[tensorbord]", "runtime.trackers"),
    ("runtime.launcher=mpd", "runtime.launcher"),
    ("runtime.deterministic=2.5", "runtime.deterministic"),
    ("checkpoint.every_minutes=soon", "checkpoint.every_minutes"),
    ("checkpoint.asynchronous=null", "checkpoint.asynchronous"),
    ("launch.dry_run=perhaps", "launch.dry_run"),
    ("seed=abc", "seed"),
    ("seed=1.5", "seed"),
    ("seed=null", "seed"),
    ("seed=", "seed"),
    ("seed=[1,2]", "seed"),
    ("run_dir=null", "run_dir"),
    ("run_dir=1e3", "run_dir"),
    ("run_dir=true", "run_dir"),
    ("run_dir=", "run_dir"),
    ("run_dir=' '", "run_dir"),
    ("run_dir=[a]", "run_dir"),
    ("run_dir={a:b}", "run_dir"),
    ('run_dir="a\tb"', "run_dir"),
    ("run_dir=~nobody-of-this-name/x", "run_dir"),
    (f"run_dir={'x' * 300}", "run_dir"),
    (f"run_dir={'/'.join(['x' * 200] * 22)}", "run_dir"),
    ("run_dir=s3://bucket/x", "run_dir"),
    ("run_dir=job.py", "run_dir"),
    ("run_dir=job.py/below", "run_dir"),
    # none of the choices
    ("cluster.scheduler=pbs", "cluster.scheduler"),
    ("cluster.scheduler=SLURM", "cluster.scheduler"),
    ("strategy.name=dpp", "strategy.name"),
    ("strategy.precision=fp8", "strategy.precision"),
    ("strategy.compile=fast", "strategy.compile"),
    ("strategy.compile_backend=''", "strategy.compile_backend"),
    ("strategy.zero_stage=4", "strategy.zero_stage"),
    ("runtime.device=tpu", "runtime.device"),
    ("checkpoint.on_error=ignore", "checkpoint.on_error"),
    ("checkpoint.best_mode=most", "checkpoint.best_mode"),
    # two that cannot be beside each other
    ("strategy.cpu_offload=true", "strategy.cpu_offload"),
    ("strategy.reshard_after_forward=false", "strategy.reshard_after_forward"),
    ("strategy.zero_stage=2", "strategy.zero_stage"),
    ("strategy.deepspeed_config=ds.json", "strategy.deepspeed_config"),
    # names that are none
    ("experiment.name=../../x", "experiment.name"),
    ("experiment.name=a/b", "experiment.name"),
    ("experiment.name=..", "experiment.name"),
    ("experiment.name=50%", "experiment.name"),
    ("experiment.name=''", "experiment.name"),
    ('experiment.name="a\tb"', "experiment.name"),
    ("experiment.target=null", "experiment.target"),
    ("experiment.target=", "experiment.target"),
    ("experiment.target=train", "experiment.target"),
    ("experiment.target=job:train", "experiment.target"),
    ("experiment.target=..job.train", "experiment.target"),
    ("experiment.target='import os'", "experiment.target"),
    ("experiment.target=42", "experiment.target"),
    ("cluster.gres='gpu:{nope}'", "cluster.gres"),
    ("cluster.gres='gpu:{'", "cluster.gres"),
    ("cluster.gres='gpu:{}'", "cluster.gres"),
    ("cluster.gres='gpu:{0}'", "cluster.gres"),
    ("cluster.gres='gpu:{gpus_per_node.x}'", "cluster.gres"),
    ("+cluster.environment={1X:a}", "cluster.environment"),
    ("+cluster.environment={'X=1; touch P; Y':a}", "cluster.environment"),
    ("+cluster.environment={'A B':a}", "cluster.environment"),
    ('cluster.account="a\tb"', "cluster.account"),
    # options of sbatch
    ("+cluster.sbatch.nodes=2", "hardware.nodes"),
    ("+cluster.sbatch.array=0-3", "array"),
    ("+cluster.sbatch.output=x", "output"),
    ("+cluster.sbatch.job_name=x", "experiment.name"),
    ("+cluster.sbatch.time=5", "hardware.time_limit_minutes"),
    ("+cluster.sbatch.mem_per_cpu=5G", "hardware.memory_gb"),
    ("+cluster.sbatch.ntasks=8", "hardware.tasks_per_node"),
    ("+cluster.sbatch.partition=x", "cluster.partition"),
    ("+cluster.sbatch.account=x", "cluster.account"),
    ("+cluster.sbatch.signal=TERM", "cluster.grace_seconds"),
    ("+cluster.sbatch.gpus=1", "cluster.gres"),
    ("+cluster.sbatch.gpus-per-node=1", "cluster.gres"),
    ("+cluster.sbatch.wrap=ls", "wrap"),
    ("+cluster.sbatch.parsable=true", "parsable"),
    ("+cluster.sbatch.p=x", "cluster.sbatch"),
    ("+cluster.sbatch={'--exclusive':true}", "cluster.sbatch"),
    ("+cluster.sbatch={'a b':1}", "cluster.sbatch"),
    ("+cluster.sbatch={mail_type:ALL,mail-type:END}", "mail-type"),
    ("+cluster.sbatch.reservation={a:1}", "cluster.sbatch.reservation"),
    ("+cluster.sbatch.reservation=''", "cluster.sbatch.reservation"),
    (r"+cluster.sbatch.reservation='a\b'", "cluster.sbatch.reservation"),
    (r"cluster.partition='a\b'", "cluster.partition"),
    ("cluster.account=''", "cluster.account"),
    ('+cluster.sbatch.comment="a\tb"', "cluster.sbatch.comment"),
    # keys and presets that are not there
    ("hardware.node=2", "hardware.node"),
    ("cluster.partion=x", "cluster.partion"),
    ("checkpoint.every=5", "checkpoint.every"),
    ("+runtime.devices=cpu", "runtime.devices"),
    ("sed=1", "sed"),
    ("seed.first=1", "seed"),
    ("data.batchsize=4", "data.batchsize"),
    ("~data.nope", "data.nope"),
    ("hardware=9xA100", "hardware"),
    ("cluster=mars", "cluster"),
    ("strategy=dpp", "strategy"),
    ("experiment=nosuch", "experiment"),
    ("hardwar=8xA100", "hardwar"),
    ("+hydra/launcher=nosuch", "hydra/launcher"),
    # no overrides
    ("word", "word"),
    ("=5", "=5"),
    ("seed==5 5", "seed"),
    ("seed=[1,", "seed=[1,"),
    ("seed={a:1", "seed={a:1"),
    ("seed='1", "seed"),
    ("data.batch_size=range(", "data.batch_size"),
    ("seed=choice(1", "seed"),
    ("--nosuch", "--nosuch"),
    ("--cfg=nothing", "--cfg"),
    ("--config-dir=nowhere", "nowhere"),
    ("--package", "--package"),
    # interpolations that lead nowhere
    ("data.batch_size=${nowhere}", "nowhere"),
    ("data.batch_size=${data.nope}", "data.nope"),
    ("data.batch_size=${data.batch_size}", "data.batch_size"),
    ("data.batch_size='${'", "data.batch_size"),
    ("data.batch_size=${mine:3}", "mine"),
    ("data.batch_size=${oc.env:NOT_SET_ANYWHERE}", "NOT_SET_ANYWHERE"),
    ("hardware.nodes=${oc.env:HOME}", "hardware.nodes"),
    ("data.batch_size=???", "data.batch_size"),
)
"""Typed on a command line; wrong in this process as well as with -m, which every third is tried with."""

HOME = ("run", *HERE)
HERE_ONLY: tuple[tuple[str, str], ...] = (
    ("launch.dry_run=true", "launch.dry_run"),
    ("seed=1,2", "seed"),
    ("seed=range(0,3)", "seed"),
    ("hardware=8xA100", "hardware=8xA100"),
    ("hardware.tasks_per_node=2", "hardware"),
    ("experiment.target=nosuch.train", "experiment.target"),
    ("experiment.target=job.nosuch", "experiment.target"),
    ("experiment.target=os.path.sep", "experiment.target"),
    ("hydra.job.chdir=true", "hydra.job.chdir"),
)
SWEPT: tuple[tuple[str, str], ...] = (
    ("seed=choice()", "seed"),
    ("data.batch_size=range(0,0)", "data.batch_size"),
    ("data.batch_size=glob(zzz*)", "glob"),
    ("seed=interval(0,1)", "interval"),
    ("run_dir=a,b", "run_dir"),
    ("run_dir=choice(a,b)", "run_dir"),
    ("launch.dry_run=true,false", "launch.dry_run"),
    ("seed=1,two", "seed"),
    ("hardware=cpu,nosuch", "hardware"),
    ("hardware.nodes=1,0", "hardware.nodes"),
    ("data.batch_size=1,${nowhere}", "nowhere"),
    ("hydra.mode=nothing", "hydra.mode"),
    ("hydra/sweeper=nosuch", "hydra/sweeper"),
    ("+hydra.sweeper.nosuch=1", "nosuch"),
    ("run_dir=50%", "run_dir"),
    (r"run_dir='a\b'", "run_dir"),
    ("hardware.nodes=3", "must fit partition cpu"),
    ("hardware.cpus_per_task=99", "must fit partition cpu"),
    ("hardware.memory_gb=900", "must fit partition cpu"),
    ("hardware.gpus_per_node=2", "must fit partition cpu"),
    ("cluster.partition=nowhere", "cluster.partition"),
    ("cluster.partition='cpu,nowhere'", "cluster.partition"),
    ("hydra/launcher=basic", "hydra/launcher"),
    ("+hydra.sweeper.params=[seed=1]", "hydra.sweeper.params"),
    ("seed=choice(choice(1,2),3)", "seed"),
    ("cluster=null", "cluster"),
    ("cluster=42", "cluster"),
    ("+hydra.job.env_set.FOO=1", "hydra.job.env_set"),
)
"""With -m."""

YAML: tuple[tuple[str | bytes, str], ...] = (
    ("a: 1\n\tb: 2\n", "config.yaml"),
    ("a: 1\na: 2\n", "config.yaml"),
    ("a: [1, 2\n", "config.yaml"),
    ("a: {1: 2\n", "config.yaml"),
    ("a: 'one\n", "config.yaml"),
    ("a: *nowhere\n", "config.yaml"),
    ("a: &x [*x]\n", "config.yaml"),
    ("a: &x {b: *x}\n", "config.yaml"),
    ("a: !!python/object/apply:os.system [ls]\n", "config.yaml"),
    ("a: !mine 3\n", "config.yaml"),
    ("@a: 1\n", "config.yaml"),
    ("a: b: c\n", "config.yaml"),
    ("a: 1\n---\nb: 2\n", "config.yaml"),
    (b"a: \xff\xfe\n", "config.yaml"),
    (b"a: caf\xe9\n", "config.yaml"),
    (b"a: \x00\n", "config.yaml"),
    ("- 1\n- 2\n", "config"),
    ("just words\n", "config"),
    ("42\n", "config"),
    ("", "run_dir"),
    ("null: 1\n", "config"),
    ("a: {null: 1}\n", "config"),
    ("defaults: hardware\n", "defaults"),
    ("defaults: [{hardware: nosuch}]\n", "hardware"),
    ("defaults: [nosuch]\n", "nosuch"),
    ("defaults: [{hardware: {a: 1}}]\n", "defaults"),
    ("defaults: [{hardware: [cpu, laptop]}]\n", "hardware"),
    ("defaults: [3]\n", "config"),
    ("defaults: [config]\n", "config"),
    ("hydra: 5\n", "hydra"),
    ("hydra: null\n", "hydra"),
    ("hydra: {searchpath: [file://nowhere/at/all]}\n", "nowhere"),
    ("hydra: {searchpath: 5}\n", "hydra.searchpath"),
    ("hydra: {nosuch: 5}\n", "hydra.nosuch"),
)
"""What config.yaml holds instead."""

SECTIONS: tuple[tuple[str, str], ...] = (
    ("hardware: 8", "hardware"),
    ("hardware: null", "hardware"),
    ("hardware: [8]", "hardware"),
    ("cluster: []", "cluster"),
    ("cluster: slurm", "cluster"),
    ("strategy: fsdp", "strategy"),
    ("strategy:", "strategy must be a mapping"),
    ("cluster: {srun: {a: 1}}", "cluster.srun must be a list"),
    ("cluster: {sbatch: [exclusive]}", "cluster.sbatch must be a mapping"),
    ("cluster: {required: {account: [x]}}", "cluster.required.account must be a mapping"),
    ("cluster: {limits: [5]}", "cluster.limits[0] must be a mapping"),
    ("launch:", "launch must be a mapping"),
    ("checkpoint: 5", "checkpoint"),
    ("runtime: {trackers: 5}", "runtime.trackers"),
    ("runtime: {profile: 5}", "runtime.profile"),
    ("experiment: gpt", "experiment"),
    ("experiment: null", "experiment"),
    ("experiment: {target: 5}", "experiment.target"),
    ("launch: true", "launch"),
    ("seed: {a: 1}", "seed"),
    ("run_dir: [x]", "run_dir"),
    ("cluster: {environment: {A: {B: 1}}}", "cluster.environment"),
    ("cluster: {environment: {A: null}}", "cluster.environment.A"),
    ("cluster: {sbatch: {nodes: 2}}", "hardware.nodes"),
    ("cluster: {setup: [null]}", "cluster.setup"),
    ("hardware: {nodes: yes}", "hardware.nodes"),
    ("hardware: {nodez: 2}", "hardware.nodez"),
    ("checkpoint: {every_steps: 5, every_minutes: 5}", "checkpoint.every_steps"),
)
"""A line more at the end of config.yaml, whose sections it replaces."""

SITES: tuple[tuple[str | bytes, str], ...] = (
    ("partion: gpu\n", "cluster.partion"),
    ("scheduler: slurm\nsbatch: {nodes: 2}\n", "hardware.nodes"),
    ("scheduler: pbs\n", "cluster.scheduler"),
    ("gres: 'gpu:{type}'\n", "cluster.gres"),
    ("grace_seconds: soon\n", "cluster.grace_seconds"),
    ("environment: {A-B: 1}\n", "cluster.environment"),
    ("- a\n", "cluster/site"),
    ("just words\n", "cluster/site"),
    ("a:\tb: c\n\td\n", "site.yaml"),
    (b"scheduler: \xff\n", "site.yaml"),
    ("setup: module load cuda\n", "cluster.setup"),
    ("defaults: [nosuch]\n", "nosuch"),
)
"""What conf/cluster/site.yaml holds."""

POINT = '{"name": ".", "overrides": [], "config": {"run_dir": "x"}}\n'
SUMMARY = '{"format": 1, "points": 1}\n'
STATE: tuple[tuple[dict[str, str | bytes], int], ...] = (
    ({"sweep.json": SUMMARY}, 78),
    ({"points.jsonl": "longitude,latitude\n"}, 78),
    ({"points.jsonl/": "", "sweep.json": SUMMARY}, 78),
    ({"points.jsonl": POINT, "sweep.json/": ""}, 78),
    ({"points.jsonl": "", "sweep.json": SUMMARY}, 65),
    ({"points.jsonl": POINT[:30], "sweep.json": SUMMARY}, 65),
    ({"points.jsonl": "[]\n", "sweep.json": SUMMARY}, 65),
    ({"points.jsonl": "3\n", "sweep.json": SUMMARY}, 65),
    ({"points.jsonl": "{}\n", "sweep.json": SUMMARY}, 65),
    ({"points.jsonl": '{"name": 1, "overrides": [], "config": {}}\n', "sweep.json": SUMMARY}, 65),
    ({"points.jsonl": '{"name": ".", "overrides": 5, "config": {}}\n', "sweep.json": SUMMARY}, 65),
    ({"points.jsonl": '{"name": ".", "overrides": [], "config": []}\n', "sweep.json": SUMMARY}, 65),
    ({"points.jsonl": '{"name": ".", "overrides": [], "config": {"hpc:nosuch": 1}}\n', "sweep.json": SUMMARY}, 65),
    ({"points.jsonl": b"\xff\xfe\x00", "sweep.json": SUMMARY}, 65),
    ({"points.jsonl": "[" * 100_000 + "\n", "sweep.json": SUMMARY}, 65),
    ({"points.jsonl": POINT, "sweep.json": "[" * 100_000}, 65),
    ({"points.jsonl": POINT, "sweep.json": '{"format": 1, "points": null}'}, 65),
    ({"points.jsonl": POINT, "sweep.json": '{"format": 1, "points": -1}'}, 65),
    ({"points.jsonl": POINT, "sweep.json": SUMMARY, "secrets.json": "[" * 100_000}, 65),
    ({"points.jsonl": POINT * 2, "sweep.json": SUMMARY}, 78),
    ({"points.jsonl": POINT * 2, "sweep.json": SUMMARY.replace("1}", "2}")}, 78),
    ({"points.jsonl": POINT, "sweep.json": ""}, 65),
    ({"points.jsonl": POINT, "sweep.json": "[1]"}, 65),
    ({"points.jsonl": POINT, "sweep.json": "{}"}, 65),
    ({"points.jsonl": POINT, "sweep.json": b"\xff"}, 65),
    ({"points.jsonl": POINT, "sweep.json": '{"format": 99, "points": 1}'}, 65),
    ({"points.jsonl": POINT, "sweep.json": SUMMARY}, 78),
)
"""What lies in a run directory that is to be gone on with, and the exit code."""

PLACES: tuple[Bad, ...] = (
    Bad(("run", "--config-path", "nowhere"), ("nowhere", "config.yaml")),
    Bad(("run", "--config-path", "job.py"), ("job.py", "config.yaml")),
    Bad(("run", "--config-path", "empty"), ("empty", "config.yaml"), {"empty/": ""}),
    Bad(("run", "--config-path", "odd"), ("odd", "config.yaml"), {"odd/config.yaml/": ""}),
    Bad(("run", "--config-path", "linked"), ("linked", "config.yaml"), {"linked/config.yml": CONFIG}),
    Bad(("run", "--config-path", "conf", "--config-name", "nosuch"), ("nosuch.yaml",)),
    *(
        Bad((*typed, "x" * 300), ("x" * 300, "too long"))
        for typed in (("run", "--config-path"), ("status",), ("logs",))
    ),
    Bad(("diff", "x" * 300, "conf"), ("x" * 300, "too long")),
    Bad(("run", "-cp", "nowhere", "-m", "seed=1,2"), ("nowhere", "config.yaml")),
    Bad(("script", "--config-path", "nowhere"), ("nowhere", "config.yaml")),
    Bad(("run", *HERE, "cluster=site"), ("cluster",), {"conf/cluster/site.yaml/": ""}),
    Bad(("run", *HERE, "-m", "--cfg", "job"), ("--cfg",)),
    Bad(("run", *HERE, "--resolve"), ("--resolve",)),
    Bad(("script", *HERE, "cluster=local"), ("cluster",)),
    Bad(("script", *HERE, "seed=x"), ("seed",)),
    Bad(
        ("run", *SUBMIT, "strategy=deepspeed", "strategy.deepspeed_config=ds.json"),
        ("strategy.deepspeed_config", "JSON"),
        {"ds.json": "{"},
    ),
    Bad(("run", *HERE), ("experiment.target", "takes (cfg, model)"), {"job.py": "def train(cfg, model): pass\n"}),
    Bad(("run", *HERE), ("experiment.target", "takes ()"), {"job.py": "def train(): pass\n"}),
    Bad(("run", *HERE), ("experiment.target", "async"), {"job.py": "async def train(cfg): pass\n"}),
    Bad(("run", *HERE), ("experiment.target", "yield"), {"job.py": "def train(cfg):\n    yield 1\n"}),
    Bad(
        ("run", "--config-path", "conf", "-m", "seed=1,2"),
        ("hydra/launcher", "BasicLauncher"),
        {"conf/config.yaml": "seed: 3\nexperiment: {target: job.train}\n"},
    ),
)


def every_bad_input() -> Iterator[Bad]:
    """The whole table."""
    for override, word in OVERRIDES:
        yield Bad(("run", *HERE, override), (word,))
    for override, word in OVERRIDES[::3]:
        yield Bad(("run", *SUBMIT, override), (word,))
    yield from (Bad(("run", *HERE, override), (word,)) for override, word in HERE_ONLY)
    yield from (Bad(("run", *SUBMIT, override), (word,)) for override, word in SWEPT)
    yield from (Bad(("run", *HERE), (word,), {"conf/config.yaml": text}) for text, word in YAML)
    for line, word in SECTIONS:
        section = line.partition(":")[0]
        kept = "".join(each for each in CONFIG.splitlines(keepends=True) if not each.startswith(f"{section}:"))
        yield Bad(("run", "--config-path", "conf"), (word,), {"conf/config.yaml": f"{kept}{line}\n"})
    yield from (
        Bad(("run", *SUBMIT, "cluster=site"), (word,), {"conf/cluster/site.yaml": text}) for text, word in SITES
    )
    for files, code in STATE:
        named = {f"out/{name}": text for name, text in files.items()}
        yield Bad(("run", *HERE), ("out",), named, code)
    yield from PLACES
