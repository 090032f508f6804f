"""What Slurm's commands print, as recorded, becomes values."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.errors import SlurmError
from hpc.slurm import client
from hpc.slurm.energy import parse_consumed
from hpc.slurm.gres import resources
from hpc.slurm.limits import Room, room

# scontrol show job --oneliner, Slurm 22.05.8, at the start of a preemption's grace time
RECORD = (
    "JobId=12 JobName=gpt UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=1 Nice=0 Account=(null) QOS=normal "
    "JobState=RUNNING Reason=None Dependency=(null) Requeue=1 Restarts=1 BatchFlag=1 Reboot=0 ExitCode=0:0 "
    "RunTime=00:00:11 TimeLimit=00:10:00 SubmitTime=2026-11-23T20:00:00 EndTime=2026-11-23T20:10:30 "
    "PreemptEligibleTime=2026-11-23T20:00:00 PreemptTime=2026-11-23T20:10:00 NodeList=node[1-2] "
    "TRES=cpu=4,mem=2000M,node=2,billing=4 Command=/tmp/a b.sh\n"
)


def test_a_job_record_is_read_by_field() -> None:
    record = client.parse_record(RECORD)
    assert (record["JobId"], record["JobState"], record["Restarts"]) == ("12", "RUNNING", "1")
    assert record["TRES"] == "cpu=4,mem=2000M,node=2,billing=4"
    assert record["NodeList"] == "node[1-2]"


def test_a_persons_habits_do_not_change_what_slurm_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCANCEL_INTERACTIVE", "SINFO_PARTITION", "SQUEUE_STATES", "SACCT_FORMAT", "SLURM_TIME_FORMAT"):
        monkeypatch.setenv(name, "odd")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    lines = client.ask(["env"]).splitlines()
    assert [line for line in lines if "odd" in line] == []
    assert {"SLURM_CONF=/etc/slurm.conf", "SLURM_TIME_FORMAT=standard"} <= {*lines}


def test_the_end_of_an_allocation_is_a_time() -> None:
    end = client.end_time(client.parse_record(RECORD))
    start = client.end_time({"EndTime": "2026-11-23T20:00:00"})
    assert end is not None
    assert start is not None
    assert end - start == 630


@pytest.mark.parametrize("record", [{}, {"EndTime": "Unknown"}, {"EndTime": "NONE"}])
def test_an_allocation_without_an_end_has_none(record: dict[str, str]) -> None:
    assert client.end_time(record) is None


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("30:00", 30),
        ("1:00:00", 60),
        ("2-00:00:00", 2880),
        ("1-12:30:00", 2190),
        ("5:30", 5.5),
        ("infinite", float("inf")),
    ],
)
def test_time_limits_are_minutes(text: str, minutes: float) -> None:
    assert client.minutes(text) == minutes


@pytest.mark.parametrize(
    ("gres", "counts"),
    [
        ("gpu:a100:8(S:0-1)", {"gpu a100": 8}),
        ("gpu:8", {"gpu ": 8}),
        ("gpu:a100:4,gpu:h100:2,nvme:1", {"gpu a100": 4, "gpu h100": 2, "nvme ": 1}),
        ("(null)", {}),
        ("N/A", {}),
        ("", {}),
        ("gpu:2080ti:4(S:0-1)", {"gpu 2080ti": 4}),
        ("gpu:a100-sxm4-80gb:8(S:0,2-3)", {"gpu a100-sxm4-80gb": 8}),
        (
            "gpu:nvidia_a100_80gb:2(S:0),shard:nvidia_a100_80gb:16",
            {"gpu nvidia_a100_80gb": 2, "shard nvidia_a100_80gb": 16},
        ),
        ("gpu:1g.5gb:14,gpu:3g.20gb:2", {"gpu 1g.5gb": 14, "gpu 3g.20gb": 2}),
        ("gpu:4(IDX:0-3),shard:64(0/64)", {"gpu ": 4, "shard ": 64}),
        ("gpu:a100", {"gpu a100": 1}),
        ("gpu", {"gpu ": 1}),
        ("craynetwork:4,bandwidth:lustre:2K", {"craynetwork ": 4, "bandwidth lustre": 2048}),
        ("gpu:(null):8", {"gpu ": 8}),
    ],
)
def test_gpus_and_the_like_are_counted_by_type(gres: str, counts: dict[str, int]) -> None:
    assert {f"{each.name} {each.kind}": each.count for each in resources(gres)} == counts


def executable(directory: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")


def test_nodes_are_grouped_by_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path, "sinfo", "echo 'gpu*|2-00:00:00|4|128+|1024000|gpu:a100:8'", monkeypatch)
    (group,) = client.node_groups()
    assert group == client.NodeGroup("gpu", True, 2880, 4, 128, 1024000, "gpu:a100:8")


def test_the_largest_array_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path, "scontrol", "echo 'MaxArraySize            = 77'", monkeypatch)
    assert room("me") == Room(77)


@pytest.mark.parametrize(
    ("associations", "qos", "of_site", "expected"),
    [
        ("", "", None, Room(1001, 998, "MaxJobCount=1000")),
        ("7", "", None, Room(1001, 5, "MaxSubmitJobs=7")),
        ("7\\n9", "", None, Room(1001, 7, "MaxSubmitJobs=9")),
        ("7\\n", "4", None, Room(1001, 2, "MaxSubmitJobs=4")),
        ("1", "", None, Room(1001, 0, "MaxSubmitJobs=1")),
        ("\\n7", "", None, Room(1001, 998, "MaxJobCount=1000")),
        ("7", "", 6, Room(1001, 4, "cluster.limits: submitted_jobs=6")),
        ("7", "", 8, Room(1001, 5, "MaxSubmitJobs=7")),
        ("", "", 8, Room(1001, 6, "cluster.limits: submitted_jobs=8")),
    ],
)
def test_the_strictest_limit_less_what_is_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, associations: str, qos: str, of_site: int | None, expected: Room
) -> None:
    """One association without a limit takes all."""
    config = r"AccountingStorageType = accounting_storage/slurmdbd\nMaxArraySize = 1001\nMaxJobCount = 1000\n"
    executable(tmp_path, "scontrol", f"printf '{config}'", monkeypatch)
    executable(tmp_path, "squeue", "printf '1_1\\n1_2\\n'", monkeypatch)
    answers = f"case $4 in qos) printf '{qos}\\n';; *) printf '{associations}\\n';; esac"
    executable(tmp_path, "sacctmgr", answers, monkeypatch)
    assert room("me", "long" if qos else None, most=of_site) == expected


def test_a_failing_command_says_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path, "scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", monkeypatch)
    with pytest.raises(SlurmError, match="`scontrol show job 99 --oneliner` failed: slurm_load_jobs error: Invalid"):
        client.show_job("99")


def test_a_missing_command_is_a_slurm_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="No such file or directory: 'sinfo'"):
        client.node_groups()


TIMES = "2026-11-29T04:00:00|2026-11-29T05:00:00"


@pytest.mark.parametrize(
    ("joules", "lines"),
    [
        (None, ["7|{}|0"]),
        (None, ["7|{}|", "7.batch|{}|", "7.0|{}|0"]),
        (None, ["7|{}|18446744073709551614", "7.batch|{}|18446744073709551615"]),
        (None, ["7|{}|4294967294", "7.0|{}|4294967295"]),
        (None, ["7|{}|18446744073709550000"]),
        (None, ["7|{}|12.5K"]),
        (900, ["7|{}|900"]),
        (900, ["7|{}|1400", "7.batch|{}|500", "7.0|{}|900"]),
        (500, ["7|{}|600", "7.batch|{}|500", "7.0|{}|100"]),
        (950, ["7|{}|950", "7.batch|{}|500", "7.extern|{}|950", "7.0|{}|900"]),
        (900, ["7|{}|0", "7.extern|{}|4294967294", "7.0|{}|900"]),
    ],
    ids=(
        "nobody measures", "nothing", "64-bit words for nothing", "32-bit ones", "below zero", "no number",
        "no steps", "the first node is counted twice", "one node", "the extern step counts alone", "a step without",
    ),
)  # fmt: skip
def test_the_energy_of_a_job_is_read_as_sacct_prints_it(joules: int | None, lines: list[str]) -> None:
    (found,) = parse_consumed("\n".join(line.format(TIMES) for line in lines))
    assert (found.job, found.joules) == ("7", joules)
    assert found.begin is not None
    assert found.end == found.begin + 3600


# sacct --duplicates of Slurm 22.05.8: a task that was requeued once and runs again, and one that waits
LIVES = """\
105_1|2026-11-29T04:00:00|2026-11-29T04:10:00|360
105_1.batch|2026-11-29T04:00:00|2026-11-29T04:10:00|360
105_1|2026-11-29T04:10:30|Unknown|0
105_1.batch|2026-11-29T04:10:30|Unknown|0
105_[2-3]|Unknown|Unknown|0
"""


def test_each_life_of_a_job_has_its_energy() -> None:
    told = [(each.job, each.begin is None, each.end is None, each.joules) for each in parse_consumed(LIVES)]
    assert told == [
        ("105_1", False, False, 360),
        ("105_1", False, True, None),
        ("105_[2-3]", True, True, None),
    ]
