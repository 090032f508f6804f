"""The presets of sites: the whole script of each, and what is refused before sbatch sees it.

`python -m tests.submit.test_sites` records the scripts as they are; look at the difference before it is committed.
"""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hpc.config import Cluster, Hardware, settings_of
from hpc.config.schema import OptionRule, SiteLimit
from hpc.errors import ConfigurationError, SubmissionError
from hpc.paths import CONF_DIR, TEMPLATE_DIR
from hpc.submit.plan import Plan
from hpc.submit.site import check_site, most_jobs
from tests.conftest import ROOT
from tests.support.scripts import Printed, scripts

RECORDS = Path(__file__).parent / "sites"
GENERIC = {"auto", "local", "slurm"}
SITES: dict[str, tuple[str, ...]] = {
    "adastra": ("hardware=adastra-8xMI250X", "cluster.account=cin0001"),
    "alliance": ("hardware=alliance-4xH100", "hardware.nodes=2", "cluster.account=def-somebody"),
    "clariden": ("hardware=alps-4xGH200", "cluster.account=g123"),
    "daint": ("hardware=alps-4xGH200", "hardware.nodes=4", "cluster.account=g123"),
    "frontier": ("hardware=frontier-8xMI250X", "hardware.nodes=2", "cluster.account=ABC123"),
    "hyperpod": ("hardware=8xH100", "hardware.nodes=2"),
    "jeanzay": ("hardware=jeanzay-4xH100", "cluster.account=abc@h100"),
    "juwels_booster": ("hardware=juwels-4xA100", "hardware.nodes=2", "cluster.account=prj"),
    "karolina": ("hardware=karolina-8xA100", "cluster.account=OPEN-1-2"),
    "leonardo": ("hardware=leonardo-4xA100-64", "cluster.account=IscrC_X"),
    "ls6": ("hardware=ls6-3xA100",),
    "lumi": ("hardware=lumi-8xMI250X", "hardware.nodes=2", "cluster.account=project_465000000"),
    "mn5_acc": ("hardware=mn5-4xH100-64", "cluster.account=bsc1", "cluster.qos=acc_ehpc"),
    "parallelcluster": ("hardware=8xH100", "hardware.memory_gb=null"),
    "perlmutter": ("hardware=perlmutter-4xA100", "hardware.nodes=2", "cluster.constraint='gpu&hbm80g'"),
    "princeton": ("hardware=1xA100", "cluster.constraint=gpu80"),
    "sunk": ("hardware=8xH200", "hardware.nodes=4"),
    "supercloud": ("hardware=supercloud-2xV100",),
    "vista": ("hardware=vista-1xGH200", "hardware.nodes=4"),
}
"""By preset: what a person types for the record besides the preset's name."""
FRONTIER = ("cluster=frontier", "hardware=frontier-8xMI250X", "cluster.account=ABC123")
VISTA = ("cluster=vista", "hardware=vista-1xGH200")
REFUSED = [
    (("cluster=frontier", "hardware=frontier-8xMI250X"), "cluster.account must be set on Frontier, but --account"),
    (
        (*FRONTIER, "hardware.time_limit_minutes=240"),
        "hardware.time_limit_minutes must be at most 120 on Frontier (partition batch), for at most 91 node(s), but is",
    ),
    (
        (*FRONTIER, "cluster.partition=extended", "hardware.nodes=65"),
        "hardware.nodes must be at most 64 on Frontier (partition extended), but is 65",
    ),
    ((*VISTA, "hardware.memory_gb=100"), "hardware.memory_gb must not ask for --mem=100G on Vista"),
    ((*VISTA, "cluster.gres='gpu:{gpus_per_node}'"), "must not ask for --gres=gpu:1 on Vista"),
    ((*VISTA, "+cluster.sbatch.export=NONE"), "cluster.sbatch.export must not ask for --export=NONE on Vista"),
    ((*VISTA, "cluster.srun=['--gpus-per-task=1']"), "cluster.srun must not ask for --gpus-per-task=1 on Vista"),
    (
        ("cluster=jeanzay", "hardware=jeanzay-4xH100", "cluster.account=abc"),
        "cluster.account must match [^@]+@(h100|a100|v100|cpu) on Jean Zay, but --account is abc: hours are counted",
    ),
    (
        ("cluster=jeanzay", "hardware=jeanzay-8xA100", "cluster.account=abc@a100", "cluster.qos=qos_gpu_a100-t4"),
        "cluster.qos must not ask for --qos=qos_gpu_a100-t4 on Jean Zay: A100 have no t4",
    ),
    (
        ("cluster=alliance", "hardware=alliance-4xH100", "cluster.account=def-a", "hardware.gpu_type=null"),
        "but --gpus-per-node is None:4: GPUs are asked for by type",
    ),
    (
        ("cluster=mn5_acc", "hardware=cpu", "hardware.cpus_per_task=8", "cluster.account=a", "cluster.qos=acc_x"),
        "hardware.cpus_per_task must match 20 on MareNostrum 5 ACC, but --cpus-per-task is 8",
    ),
    (("cluster=tuolumne", "hardware=8xH100"), "cluster must be one of adastra, "),
]  # fmt: skip
"""Command lines, and words of the sentence."""
SHOWN = [
    tuple(shlex.split(line)[2:])
    for line in (ROOT / "docs" / "sites.md").read_text().splitlines()
    if line.startswith("hpc script ")
]
"""What docs/sites.md shows."""


def _script(printed: Printed, directory: Path) -> str:
    """As it is stored: without this machine's paths, and with names for what all scripts share."""
    assert printed.code == 0, printed.err
    text = printed.out
    for path in sorted(TEMPLATE_DIR.glob("*.sh")):
        text = text.replace(path.read_text().rstrip("\n"), f"# ... slurm_templates/{path.name}")
    text = re.sub(r"export PYTHONPATH=.*", "export PYTHONPATH=...", text)
    text = re.sub(rf"{re.escape(sys.executable)} -u -m hpc.*", "...", text)
    return text.replace(str(directory), "/here").rstrip("\n") + "\n"


def _commands() -> list[list[str]]:
    """Without a snapshot, whose digest changes with every line of code."""
    fixed = ("run_dir=runs/out", "launch.snapshot=false")
    return [[f"cluster={site}", *typed, *fixed] for site, typed in SITES.items()]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sites")


@pytest.fixture(scope="module")
def printed(here: Path) -> dict[tuple[str, ...], Printed]:
    """Everything this module types, by the command line."""
    commands = [*_commands(), *(list(typed) for typed, _ in REFUSED), *map(list, SHOWN)]
    return {tuple(typed): each for typed, each in zip(commands, scripts(here, commands), strict=True)}


@pytest.mark.parametrize("site", SITES)
def test_the_script_for_a_site_is_as_recorded(site: str, printed: dict[tuple[str, ...], Printed], here: Path) -> None:
    command = dict(zip(SITES, _commands(), strict=True))[site]
    assert _script(printed[tuple(command)], here) == (RECORDS / f"{site}.sh").read_text()


@pytest.mark.parametrize(("typed", "words"), REFUSED, ids=[" ".join(typed) for typed, _ in REFUSED])
def test_what_a_site_refuses_is_one_sentence_before_sbatch(
    typed: tuple[str, ...], words: str, printed: dict[tuple[str, ...], Printed], here: Path
) -> None:
    found = printed[typed]
    assert (found.code, found.out) == (78, "")
    (sentence,) = (line for line in found.err.splitlines() if not line.endswith(" ..."))  # slow machines say why
    assert re.fullmatch(r"hpc: .+\.", sentence)
    assert words in sentence
    assert not (here / "runs").exists()


def _preset(name: str) -> Any:
    """A preset over the one in its defaults list."""
    own: Any = OmegaConf.load(CONF_DIR / "cluster" / f"{name}.yaml")
    own = own.get("cluster", own)
    base = [_preset(each) for each in own.pop("defaults", [])]
    return OmegaConf.merge(*base, own)


def test_every_preset_is_in_the_table_and_says_where_its_rules_come_from() -> None:
    presets = {path.stem for path in (CONF_DIR / "cluster").glob("*.yaml")} - GENERIC
    assert presets == set(SITES) == {path.stem for path in RECORDS.glob("*.sh")}
    for name in presets:
        settings = settings_of(OmegaConf.create({"cluster": _preset(name), "hardware": {"gpu_type": "h100"}})).cluster
        assert settings.site, name
        assert settings.source.startswith("http"), name
        assert settings.checked_on, name
        assert settings.scheduler == "slurm", name


DOCS = ROOT / "docs" / "sites.md"


def row_of(name: str) -> str:
    """A preset's line in the table of docs/sites.md; `python -m tests.submit.test_sites` writes them."""
    cluster = settings_of({"cluster": _preset(name), "hardware": {"gpu_type": "h100"}}).cluster
    needed, refused = (", ".join(f"`{option}`" for option in each) for each in (cluster.required, cluster.forbidden))
    hardware = SITES[name][0].partition("=")[2]
    return f"| `{name}` | {cluster.site} | {needed} | {refused} | `{hardware}` | {cluster.checked_on} |"


def test_the_table_in_the_docs_is_that_of_the_presets() -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert rows == [row_of(name) for name in SITES]


def test_the_site_of_ones_own_in_the_docs_is_a_cluster() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    cluster = settings_of({"cluster": OmegaConf.create(block)}).cluster
    assert [row.nodes for row in cluster.limits] == [4, 64]


@pytest.mark.parametrize("typed", SHOWN, ids=" ".join)
def test_what_the_docs_type_prints_a_script(typed: tuple[str, ...], printed: dict[tuple[str, ...], Printed]) -> None:
    assert printed[typed].out.startswith("#!/bin/bash\n"), printed[typed].err


def test_only_juwels_has_a_suffix_for_its_hosts() -> None:
    """JUPITER's hosts have none: whoever copies the preset is told so in it."""
    text = {path.stem: path.read_text() for path in (CONF_DIR / "cluster").glob("*.yaml")}
    assert [name for name, each in text.items() if "host_suffix: " in each] == ["juwels_booster"]
    assert "JUPITER" in text["juwels_booster"]


def a_plan(cluster: Cluster, points: int = 1, **hardware: Any) -> Plan:
    return Plan(ROOT / "sweep", "job", tuple(map(str, range(points))), Hardware(**hardware), cluster, 1)


ACCOUNT = {"account": OptionRule("every job is charged")}


def test_what_the_environment_asks_sbatch_for_counts() -> None:
    check_site(a_plan(Cluster(required=ACCOUNT)), {"SBATCH_ACCOUNT": "abc"})
    with pytest.raises(SubmissionError, match="SBATCH_ACCOUNT must not ask for --account=abc on this site: every job"):
        check_site(a_plan(Cluster(forbidden=ACCOUNT)), {"SBATCH_ACCOUNT": "abc"})
    with pytest.raises(SubmissionError, match="SBATCH_MEM_PER_NODE must not ask for --mem=5G on this site: no"):
        check_site(a_plan(Cluster(forbidden={"mem": OptionRule("no")})), {"SBATCH_MEM_PER_NODE": "5G"})


def test_the_beginning_of_an_options_name_counts_as_the_name() -> None:
    bound = {"gpu-bind": OptionRule("no"), "gpus": OptionRule("never")}
    for cluster in (Cluster(forbidden=bound, sbatch={"gpu-b": "x"}), Cluster(forbidden=bound, srun=["--gpu_b=x"])):
        with pytest.raises(SubmissionError, match="no"):
            check_site(a_plan(cluster), {})
    check_site(a_plan(Cluster(forbidden={"gpus-per-node": OptionRule("no")}, gres=None, sbatch={"gpus": 2})), {})


STEPS = [
    SiteLimit(nodes=2, time_limit_minutes=10, submitted_jobs=5),
    SiteLimit(nodes=8, time_limit_minutes=60, submitted_jobs=7),
    SiteLimit(partition="long", time_limit_minutes=600),
    SiteLimit(partition="long", qos="test", nodes=1),
]


@pytest.mark.parametrize(
    ("partition", "qos", "nodes", "minutes", "words"),
    [
        (None, None, 2, 10, ""),
        (None, None, 2, 11, "time_limit_minutes must be at most 10 on this site, for at most 2 node"),
        (None, None, 3, 60, ""),
        ("any", None, 9, 1, "nodes must be at most 8 on this site, but is 9"),
        ("long", None, 99, 600, ""),
        ("short,long", None, 99, 601, r"at most 600 on this site \(partition long\), but is 601"),
        ("long", "test", 1, 9999, ""),
        ("long", "test", 2, 1, r"at most 1 on this site \(partition long, QOS test\)"),
    ],
)
def test_the_most_special_limit_counts_and_then_the_smallest_that_holds_the_nodes(
    partition: str | None, qos: str | None, nodes: int, minutes: int, words: str
) -> None:
    plan = a_plan(
        Cluster(limits=STEPS, partition=partition, qos=qos, grace_seconds=1), nodes=nodes, time_limit_minutes=minutes
    )
    if not words:
        check_site(plan, {})
        return
    with pytest.raises(SubmissionError, match=words):
        check_site(plan, {})


def test_the_number_of_jobs_is_the_smallest_of_the_place() -> None:
    assert most_jobs(Cluster(limits=STEPS)) == 5
    assert most_jobs(Cluster(limits=STEPS, partition="long")) is None
    assert most_jobs(Cluster()) is None


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ({"required": {"--account": {"why": "x"}}}, "cluster.required must have names of sbatch options"),
        ({"forbidden": {"mem": {}}}, "missing mandatory value: why"),
        ({"required": {"account": {"why": "x", "matches": "("}}}, "matches must be a regular expression, but is"),
        ({"limits": [{"nodes": 0}]}, "cluster.limits.0.nodes must be at least 1, but is 0"),
        ({"limits": [{"hours": 1}]}, "hours is no setting"),
        ({"checked_on": "last year"}, "cluster.checked_on must be a date such as 2026-11-23, but is last year"),
    ],
)
def test_a_preset_of_ones_own_is_checked(cluster: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        settings_of({"cluster": cluster})


def _record() -> None:
    with tempfile.TemporaryDirectory() as name:
        for each, found in zip(SITES, scripts(Path(name), _commands()), strict=True):
            (RECORDS / f"{each}.sh").write_text(_script(found, Path(name)))
    lines = [line for line in DOCS.read_text().splitlines() if not line.startswith("| `")]
    below = next(number for number, line in enumerate(lines) if line.startswith("|---")) + 1
    lines[below:below] = [row_of(name) for name in SITES]
    DOCS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    _record()
