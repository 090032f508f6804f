"""Only what is sure is refused: Slurm's own answers decide, and what they leave open is left to sbatch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpc.config import Cluster, Hardware
from hpc.errors import SubmissionError
from hpc.submit.fit import check_fits
from hpc.submit.options import check_options
from hpc.submit.plan import Plan
from tests.conftest import FakeSlurm

NOTHING: Mapping[str, str] = {}


def plan(cluster: Cluster, **hardware: object) -> Plan:
    given = Hardware(name="mine", **hardware)  # type: ignore[arg-type]
    return Plan(Path("/runs/x"), "mine", ("0",), given, cluster, 1)


@contextmanager
def refused(words: str | None) -> Iterator[None]:
    """Expect the sentence, or none."""
    if words is None:
        yield
        return
    with pytest.raises(SubmissionError, match=words):
        yield


@pytest.fixture
def sinfo(fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """On PATH in this process."""
    for name, value in fake_slurm.environ.items():
        monkeypatch.setenv(name, value)
    return fake_slurm


TOO_FEW = "hardware=mine must fit partition gpu, but asks for 1 node"


@pytest.mark.parametrize(
    ("there", "kind", "count", "words"),
    [
        ("gpu:2080ti:4(S:0-1)", "2080ti", 4, None),
        ("gpu:2080ti:4(S:0-1)", "2080ti", 8, TOO_FEW),
        ("gpu:2080ti:4(S:0-1)", "a100", 1, TOO_FEW),
        ("gpu:a100-sxm4-80gb:8", "a100-sxm4-80gb", 8, None),
        ("gpu:a100-sxm4-80gb:8", "a100", 8, None),
        ("gpu:a100-sxm4-80gb:4", "a100", 8, TOO_FEW),
        ("gpu:nvidia_a100:8(S:0-1)", "nvidia_a100", 8, None),
        ("gpu:nvidia_a100:8(S:0-1)", "NVIDIA_A100", 8, None),
        ("gpu:a100:2,gpu:1g.5gb:14", "1g.5gb", 7, None),
        ("gpu:a100:2,gpu:1g.5gb:14", "3g.20gb", 1, TOO_FEW),
        ("gpu:a100:4,gpu:h100:4", None, 8, None),
        ("gpu:a100:4,gpu:h100:4", None, 9, TOO_FEW),
        ("gpu:8", None, 8, None),
        ("gpu:4", None, 8, TOO_FEW),
        ("gpu:8", "a100", 8, None),
        ("gpu:4", "a100", 8, TOO_FEW),
        ("(null)", None, 1, TOO_FEW),
        ("(null)", None, 0, None),
    ],
)
def test_gpus_of_any_spelling(sinfo: FakeSlurm, there: str, kind: str | None, count: int, words: str | None) -> None:
    sinfo.answer("sinfo", f"gpu*|infinite|2|64|512000|{there}\n")
    with refused(words):
        check_fits(plan(Cluster(), gpus_per_node=count, gpu_type=kind), NOTHING)


@pytest.mark.parametrize(
    ("gres", "there", "words"),
    [
        ("gpu:{gpus_per_node}", "gpu:8", None),
        ("gpu:{gpus_per_node}", "gpu:4", TOO_FEW),
        ("shard:{gpus_per_node}", "gpu:1,shard:16", None),
        ("shard:{gpus_per_node}", "gpu:8", TOO_FEW),
        ("gpu:{gpus_per_node},nvme:1", "gpu:8", TOO_FEW),
        (None, "(null)", None),
    ],
)
def test_what_is_compared_is_what_is_asked(sinfo: FakeSlurm, gres: str | None, there: str, words: str | None) -> None:
    sinfo.answer("sinfo", f"gpu*|infinite|2|64|512000|{there}\n")
    with refused(words):
        check_fits(plan(Cluster(gres=gres), gpus_per_node=8, gpu_type="a100"), NOTHING)


@pytest.mark.parametrize(
    ("partition", "exported", "words"),
    [
        ("short,long", None, None),
        ("long", None, None),
        ("short", None, "at most 60 on partition short, but is 120"),
        (None, None, "at most 60 on partition short"),
        (None, "long", None),
        ("short,nowhere", None, "cluster.partition must be one of short, long, but is nowhere"),
        ("short", "long", "at most 60 on partition short"),
    ],
)
def test_one_of_the_partitions_must_suffice(
    sinfo: FakeSlurm, partition: str | None, exported: str | None, words: str | None
) -> None:
    sinfo.answer("sinfo", "short*|1:00:00|4|8|32000|(null)\nlong|7-00:00:00|4|8|32000|(null)\n")
    with refused(words):
        environ = {"SBATCH_PARTITION": exported} if exported else {}
        check_fits(plan(Cluster(partition=partition), time_limit_minutes=120), environ)


@pytest.mark.parametrize("answer", ["", "sinfo: no such thing\n", "CLUSTER: other\n"])
def test_what_cannot_be_told_is_left_to_sbatch(sinfo: FakeSlurm, answer: str) -> None:
    sinfo.answer("sinfo", answer)
    check_fits(plan(Cluster(partition="gpu"), nodes=99), NOTHING)


def test_the_smallest_of_unlike_nodes_decides_nothing(sinfo: FakeSlurm) -> None:
    sinfo.answer("sinfo", "gpu*|infinite|2|8+|16000+|(null)\n")
    check_fits(plan(Cluster(), cpus_per_task=64, memory_gb=500), NOTHING)


@pytest.mark.parametrize(
    ("sbatch", "environ", "option"),
    [
        ({"clusters": "other"}, {}, "--clusters=other"),
        ({"clusters": ["one", "other"]}, {}, "--clusters=one,other"),
        ({}, {"SBATCH_CLUSTERS": "other"}, "--clusters=other"),
        ({}, {}, ""),
    ],
)
def test_another_cluster_is_asked_about_itself(
    sinfo: FakeSlurm, sbatch: dict[str, str], environ: dict[str, str], option: str
) -> None:
    check_fits(plan(Cluster(sbatch=dict(sbatch))), environ)
    check_options(Cluster(sbatch=dict(sbatch)))
    (call,) = sinfo.calls
    assert (option in call, "--all" in call) == (True, True)
    assert ("--clusters" in call) == bool(option)
