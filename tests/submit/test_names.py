"""Names are data: any text in any setting is refused by a sentence, or arrives as it is, and nothing else is run.

The scripts are run by bash itself, with executables on PATH that write down what they are asked.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from hpc.config import Cluster, Container, Settings
from hpc.errors import ConfigurationError
from hpc.run.ownership import make_private
from hpc.run.points import Sweep
from hpc.submit.freeze import freeze_point, run_directory
from hpc.submit.options import NOT_A_JOB, OWNED, check_options
from hpc.submit.plan import Plan, make_plans
from hpc.submit.script import script
from hpc.submit.srun import NOT_THE_RANKS, PLANS_OWN, asked_of_srun
from hpc.submit.variables import write_secrets

FRAGMENTS = (
    *("\n", "\r", "\t", "\0", " ", "\x1b[0m", "\x85", "\u2028", "\u2029", "\ud800", "é", "日"),
    *("'", '"', "`touch P`", "$(touch P)", "${IFS}", "$HOME", "\ntouch P\n", ";touch P;", "&&touch P", "|touch P"),
    *("\\", "%j", "../", "-", "--wrap=x", "\n#SBATCH --nodes=9\n", "=", ",", "{", "}", "{gpu_type}", "~", "*", "!"),
    *("(", ")", "<", ">", "&", "#", "a", "0", "X=1"),
)
TEXT = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=4).map("".join), st.text(max_size=12), st.just("plain")
)
NAME = st.one_of(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), st.sampled_from(("RANK", "UID")), TEXT)
OPTION = st.one_of(
    st.sampled_from(("comment", "mail-user", "mail_type", "reservation", "nodelist", "array", "arr")), TEXT
)
EACH: dict[str, st.SearchStrategy[Any]] = {
    "run_dir": TEXT,
    "experiment.name": TEXT,
    "hardware.gpu_type": TEXT,
    **{f"cluster.{name}": TEXT for name in ("partition", "account", "qos", "constraint", "gres")},
    "cluster.sbatch": st.dictionaries(OPTION, TEXT, max_size=2),
    "cluster.environment": st.dictionaries(NAME, TEXT, max_size=3),
}
SETTINGS = st.sets(st.sampled_from(sorted(EACH)), min_size=1, max_size=2).flatmap(
    lambda keys: st.fixed_dictionaries({key: EACH[key] for key in sorted(keys)})
)
STUB = """#!/bin/sh
/usr/bin/env -0 >"$STUB_OUT/environment"
printf '%s\\0' "$@" >"$STUB_OUT/arguments"
"""
CONTROLLER = '#!/bin/sh\necho "JobState=RUNNING Restarts=0 Reason=None"\n'
OTHER = '#!/bin/sh\necho "$0 $*" >>"$STUB_OUT/others"\n'


@dataclass(frozen=True)
class Ran:
    """What a script did.

    Args:
        environment: Of srun.
        arguments: Of srun.
    """

    environment: dict[str, str]
    arguments: list[str]


def bash(text: str, scratch: Path) -> Ran:
    """Run a script where srun and the controller are stubs, and so is whatever it must not run."""
    programs, out, here = (scratch / name for name in ("bin", "out", "here"))
    for directory in (programs, out, here):
        directory.mkdir()
    for name in ("srun", "scontrol", "touch", "wrap", "rm"):
        (programs / name).write_text({"srun": STUB, "scontrol": CONTROLLER}.get(name, OTHER))
        (programs / name).chmod(0o755)
    (scratch / "script.sh").write_bytes(text.encode())
    done = subprocess.run(
        ["/bin/bash", str(scratch / "script.sh")], cwd=here, capture_output=True, timeout=60, check=False,
        env={"PATH": f"{programs}:/usr/bin:/bin", "STUB_OUT": str(out), "SLURM_JOB_ID": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list(here.iterdir()) == []
    assert sorted(path.name for path in out.iterdir()) == ["arguments", "environment"]
    variables = (out / "environment").read_bytes().decode(errors="surrogateescape").split("\0")[:-1]
    arguments = (out / "arguments").read_bytes().decode(errors="surrogateescape").split("\0")[:-1]
    return Ran(dict(each.split("=", 1) for each in variables), arguments)


def plan_of(asked: dict[str, Any], directory: Path) -> Plan:
    """The plan of one point that these settings make, refused as the program refuses it."""
    config: dict[str, Any] = {"experiment": {"target": "job.train"}, "hardware": {"gpus_per_node": 1}}
    for key, value in asked.items():
        section, _, name = key.partition(".")
        if name:
            config.setdefault(section, {})[name] = value
    config["run_dir"] = f"{directory}/{asked['run_dir']}" if "run_dir" in asked else str(directory / "run")
    place = run_directory(OmegaConf.create({"run_dir": config["run_dir"]}))
    point = freeze_point(place, "0", OmegaConf.create(config))
    (plan,) = make_plans(Sweep(place, (point,)), 10, lambda _: "slurm")
    return plan


def options(text: str) -> dict[str, str]:
    """What sbatch reads: lines up to the first command, split as it splits them; see `test_sbatch_parser`."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if line and not line.startswith("#"):
            return found
        if line.startswith("#SBATCH"):
            (word,) = shlex.split(line.removeprefix("#SBATCH "), posix=True)
            name, _, value = word.removeprefix("--").partition("=")
            assert name not in found
            found[name] = value
    raise AssertionError("a script without a command")


def check(asked: dict[str, Any], scratch: Path) -> bool:
    """Whether these settings are taken; what arrives then is what was asked."""
    try:
        plan = plan_of(asked, scratch / "place")
    except ConfigurationError:
        return False
    text = script(plan)
    if "submitit/environment_" in text:
        if not plan.log_directory.resolve().is_relative_to(scratch):
            return False
        make_private(plan.log_directory)
        write_secrets(plan)
    ran, cluster = bash(text, scratch), plan.cluster
    expected = {name.replace("_", "-"): value for name, value in asked.get("cluster.sbatch", {}).items()}
    expected |= {"job-name": plan.job_name, "nodes": "1", "output": f"{plan.log_directory}/%j_0_log.out"}
    given = {name: getattr(cluster, name) for name in ("partition", "account", "qos", "constraint")}
    expected |= {name: value for name, value in given.items() if value is not None}
    found = options(text)
    usual = {"comment", "gres", "ntasks-per-node", "open-mode", "requeue", "signal", "time"}
    assert {name: found[name] for name in expected} == expected
    assert found.keys() - expected.keys() <= usual
    assert {name: ran.environment.get(name) for name in cluster.environment if name != "PYTHONPATH"} == {
        name: value for name, value in cluster.environment.items() if name != "PYTHONPATH"
    }
    assert ran.arguments[:3] == ["--unbuffered", "--output", f"{plan.log_directory}/%j_%t_log.out"]
    assert sys.executable in ran.arguments
    return True


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(SETTINGS)
def test_any_text_is_refused_or_arrives_as_it_is_and_nothing_else_runs(asked: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        check(asked, Path(name))


ODD = 'it\'s "$HOME" `touch P` $(touch P);touch P\ntouch P\n#SBATCH --nodes=9 \\ % é \u2028'


def test_environment_variables_take_any_text_secret_or_not(tmp_path: Path) -> None:
    assert check(
        {"cluster.environment": {"ODD": ODD, "ODD_API_KEY": ODD, "B": "-n"}, "run_dir": "it's $HOME"}, tmp_path
    )


LINES = ("a\ntouch P", "a\x00", "a\x1b[0m", "a\x85b", "a\u2028b", "a\u2029b", "\ud800")
NO_VARIABLES = (
    *("X=1; touch P; Y", "X Y", "", "1X", "X\n", "X$(touch P)", "é", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"),
    *("MASTER_PORT", "SLURM_PROCID", "SLURM_NTASKS", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SUBMITIT_EXECUTOR"),
    *("hpc_sweep", "hpc_points", "BASH_ENV", "UID", "IFS", "SHELLOPTS", "PWD"),
)
NO_OPTIONS = (
    *(*OWNED, *NOT_A_JOB, "arr", "job-nam", "job_name", "outp", "err", "open-mod", "sig", "wra", "tes", "ntask", "N"),
    *("a", "-array", "--array", "com", "requeu", "no-req", "constr", "x\ny", "x y", "x=y", "", "é", "ARRAY;"),
)
REFUSED: dict[str, tuple[Any, ...]] = {
    "run_dir": LINES,
    "experiment.name": (*LINES, "a\\b", "a/b", "50%"),
    **{f"cluster.{name}": (*LINES, "a\\b", "") for name in ("partition", "account", "qos", "constraint")},
    "hardware.gpu_type": (*LINES, "a\\b"),
    "cluster.gres": (*LINES, "a\\b", "gpu:{gpus_per_node:c}", "gpu:{gpu_type!r}", "gpu:{gpu_type.upper}"),
    "cluster.environment": (*({name: "1"} for name in NO_VARIABLES), {"X": "\ud800"}, {"X": "\0"}),
    "cluster.srun": (
        *([word] for word in ("-p", "-pgpu", "-K0", "gpu", "", "-", "--", "--x", "--cpu-bind cores", "--=x", "--é=1")),
        *([f"--{name}=1"] for name in (*PLANS_OWN, *NOT_THE_RANKS, "part", "kill", "accou", "ntasks_per_node", "p")),
        *([f"--export{text}"] for text in ("", "=NONE", "=PATH", "=ALLOW")),
    ),
    "cluster.sbatch": (
        *({"requeue": True, "no_requeue": True}, {"begin": 960}, {"deadline": 960}, {"exclude": [True]}),
        *({name: "x"} for name in NO_OPTIONS),
        *({"mail-user": text} for text in (*LINES, "a\\b", "")),
    ),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_is_refused_by_its_name(key: str, tmp_path: Path) -> None:
    for value in REFUSED[key]:
        with pytest.raises(ConfigurationError, match=key):
            print(f"{value!r} was taken", plan_of({key: value}, tmp_path))


@pytest.mark.parametrize("name", ["OMPI_MCA_btl", "NCCL_DEBUG", "PATH", "HPC_LAUNCHER", "UCX_TLS", "_x"])
def test_settings_of_libraries_are_nobodys_ranks(name: str) -> None:
    check_options(Cluster(environment={name: "1"}))


def test_options_of_srun_and_of_its_plugins_are_taken() -> None:
    words = ["--cpu-bind=cores", "--gres=gpu:1", "--mem=0", "--label", "--export=ALL,A=1", "--environment=/a b.toml"]
    found = asked_of_srun(Settings(cluster=Cluster(srun=words)))
    assert [f"--{name}" + (f"={value}" if value else "") for _, name, value in found] == words
    boxed = Settings(container=Container(runtime="pyxis", options=["-p"]))
    with pytest.raises(ConfigurationError, match=r"container\.options must have whole options"):
        list(asked_of_srun(boxed))
    assert not list(asked_of_srun(replace(boxed, container=Container(runtime="podman", options=["-p"]))))


@pytest.mark.parametrize(
    "name", ["exclusive", "exclude", "nice", "hold", "clusters", "comment", "requeue", "no-requeue"]
)
def test_whole_names_of_options_are_taken(name: str) -> None:
    check_options(Cluster(sbatch={name: "1"}))


def test_a_script_that_would_run_more_is_noticed(tmp_path: Path) -> None:
    """The stubs see what the tests above say does not happen."""
    with pytest.raises(AssertionError):
        bash("#!/bin/bash\ntouch P\nsrun x\n", tmp_path)
    assert "touch P" in (tmp_path / "out" / "others").read_text()
    assert os.listdir(tmp_path / "here") == []  # noqa: PTH208 (names are all that is wanted)
