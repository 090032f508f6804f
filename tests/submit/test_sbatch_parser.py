"""Whatever a plan says reaches sbatch as it was meant: the real sbatch's own parser reads the scripts.

It prints every option it has understood before it looks for a controller, of which there is none here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hpc.config import Cluster, Hardware
from hpc.config.schema import MOST, MOST_GRACE_SECONDS, MOST_MINUTES
from hpc.submit.options import check_options
from hpc.submit.plan import Plan
from hpc.submit.script import script
from tests.conftest import clean_environment

pytestmark = pytest.mark.skipif(shutil.which("sbatch") is None, reason="needs Slurm's sbatch on PATH")

CONF = """\
ClusterName=none
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=1
MessageTimeout=2
AuthType=auth/none
CredType=cred/none
GresTypes=gpu,shard,nvme
"""
ODD = (
    "it's two words",
    'double "quotes" inside',
    "$HOME and `ls` and $(ls)",
    "a#b # c",
    "a;b && c | d > e",
    "été/日本",
    "* ? [1-3] {a,b} ~",
    "-x --y=z",
    "100% of %j",
    "'",
    '"',
)


def understood(text: str, directory: Path, **environ: str) -> dict[str, str]:
    """The options that sbatch has read from a script, by name."""
    (directory / "slurm.conf").write_text(CONF)
    (directory / "script.sh").write_text(text)
    done = subprocess.run(
        ["sbatch", "-v", "script.sh"],
        cwd=directory, env=clean_environment(SLURM_CONF=str(directory / "slurm.conf"), **environ),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Unable to contact slurm controller" in done.stderr, done.stderr
    return dict(re.findall(r"^sbatch: ([\w-]+) +: (.*)$", done.stderr, re.MULTILINE))


def plan(directory: Path, cluster: Cluster, name: str = "mine", **hardware: object) -> Plan:
    check_options(cluster)
    return Plan(directory, name, ("0", "1"), Hardware(**hardware), cluster, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", ODD)
def test_any_text_is_one_value(tmp_path: Path, odd: str) -> None:
    site = Cluster(sbatch={"comment": odd, "mcs_label": odd}, environment={"ODD": odd}, setup=[": setup"])
    found = understood(script(plan(tmp_path, site, name=odd)), tmp_path)
    assert (found["comment"], found["mcs-label"], found["job-name"]) == (odd, odd, odd)


@pytest.mark.parametrize("odd", [text for text in ODD if "%" not in text])
def test_any_directory_is_where_the_output_goes(tmp_path: Path, odd: str) -> None:
    found = understood(script(plan(tmp_path / odd, Cluster())), tmp_path)
    assert found["output"] == f"{tmp_path / odd}/submitit/%A_%a_0_log.out"


def test_every_option_of_a_plan_is_understood(tmp_path: Path) -> None:
    site = Cluster(
        partition="short,long",
        account="lab_7",
        qos="high",
        constraint="a100&nvlink|h100",
        sbatch={
            "exclusive": True,
            "exclude": "node[01-04],n7",
            "mail_type": "END,FAIL",
            "hold": False,
            "licenses": None,
            "reservation": "friday",
            "nice": 5,
            "requeue": False,
        },
    )
    found = understood(
        script(plan(tmp_path, site, nodes=2, tasks_per_node=4, gpus_per_node=4, gpu_type="2080ti", memory_gb=0)),
        tmp_path,
    )
    expected = {
        "partition": "short,long",
        "account": "lab_7",
        "qos": "high",
        "constraint": "a100&nvlink|h100",
        "exclusive": "exclusive",
        "mail-type": "END,FAIL",
        "reservation": "friday",
        "nice": "5",
        "nodes": "2",
        "ntasks-per-node": "4",
        "gres": "gres:gpu:2080ti:4",
        "array": "0-1%2",
        "mem": "0?",
        "time": "01:00:00",
        "signal": "USR2@120",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["exclude"] == "node[01-04],n7"
    assert not {"hold", "licenses", "requeue"} & found.keys()


def test_the_most_that_a_setting_may_be_is_understood(tmp_path: Path) -> None:
    most = plan(
        tmp_path, Cluster(grace_seconds=MOST_GRACE_SECONDS), nodes=MOST, cpus_per_task=MOST,
        memory_gb=MOST, time_limit_minutes=MOST_MINUTES,
    )  # fmt: skip
    found = understood(script(most), tmp_path)
    assert found["signal"] == f"USR2@{MOST_GRACE_SECONDS}"
    assert {found[name] for name in ("nodes", "cpus-per-task")} == {str(MOST)}
    days, hours, minutes = MOST_MINUTES // 1440, MOST_MINUTES // 60 % 24, MOST_MINUTES % 60
    assert found["time"] == f"{days}-{hours:02}:{minutes:02}:00"
    assert found["mem"].startswith(str(MOST))


@pytest.mark.parametrize(
    ("gres", "kind", "asked"),
    [
        ("gpu:{gpu_type}:{gpus_per_node}", "a100-sxm4-80gb", "gres:gpu:a100-sxm4-80gb:2"),
        ("gpu:{gpu_type}:{gpus_per_node}", "1g.5gb", "gres:gpu:1g.5gb:2"),
        ("gpu:{gpu_type}:{gpus_per_node}", None, "gres:gpu:2"),
        ("gpu:{gpus_per_node}", "a100", "gres:gpu:2"),
        ("shard:{gpus_per_node}", "a100", "gres:shard:2"),
        ("gpu:{gpus_per_node},nvme:1", "a100", "gres:gpu:2,gres:nvme:1"),
        (None, "a100", None),
    ],
)
def test_gpus_are_asked_for_as_the_site_spells_them(
    tmp_path: Path, gres: str | None, kind: str | None, asked: str | None
) -> None:
    text = script(plan(tmp_path, Cluster(gres=gres), gpus_per_node=2, gpu_type=kind))
    found = understood(text, tmp_path).get("gres")
    assert (found or "").replace("gres:", "") == (asked or "").replace("gres:", "")


def test_gpus_may_be_asked_for_by_another_option(tmp_path: Path) -> None:
    site = Cluster(gres=None, sbatch={"gpus-per-node": "a100:2"})
    found = understood(script(plan(tmp_path, site, gpus_per_node=2, gpu_type="a100")), tmp_path)
    assert "gres" not in found
    assert found["gpus-per-node"].removeprefix("gpu:") == "a100:2"


def test_a_login_shell_fills_in_what_the_plan_leaves_open(tmp_path: Path) -> None:
    found = understood(script(plan(tmp_path, Cluster(partition="gpu"))), tmp_path, SBATCH_ACCOUNT="lab")
    assert (found["account"], found["partition"]) == ("lab", "gpu")
