"""Which promises hold on one partition? Sources: slurm.conf(5), and what Slurm 22.05 was seen to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from hpc.doctor.finding import NOTE, OK, PROBLEM, Finding
from hpc.slurm.client import minutes
from hpc.slurm.gres import resources
from hpc.slurm.survey import Record, Survey

OUT_OF_USE = ("DOWN", "DRAIN", "FAIL", "NOT_RESPONDING", "MAINT", "*")
MARGIN_SECONDS = 2.0
"""Between the end of a save and SIGKILL."""


def preemption(survey: Survey, partition: Record, save_seconds: float | None) -> Iterator[Finding]:
    """Whether a preempted job can save, and comes back.

    Args:
        survey: Of the cluster.
        partition: Which one.
        save_seconds: What the last save of this user took; None where none is known.
    """
    mode = _mode(survey, partition)
    if not mode:
        yield Finding("preemption", OK, "Jobs are not preempted.")
        return
    if survey.text("PreemptType").endswith("qos"):
        advice = "`sacctmgr show qos format=name,preempt,preemptmode,gracetime` tells what yours is."
        yield Finding("preemption", NOTE, "A QOS may preempt otherwise than this partition says.", advice)
    if "SUSPEND" in mode:
        text = "Preempted jobs are frozen and go on later: a peer that waits may see a hang."
        advice = "Let runtime.collective_timeout_seconds be longer than a job may be frozen."
        yield Finding("preemption", NOTE, text, advice)
        return
    grace, wait = _seconds(partition.get("GraceTime", "0")), survey.number("KillWait", 30)
    text = f"preempt: {grace} s grace, {wait} s until SIGKILL"
    yield _fits(text, grace + wait, save_seconds)
    if "CANCEL" in mode:
        text = "Slurm ends preempted jobs (PreemptMode=CANCEL): the batch script sends a job that goes on."
        yield Finding("preemption", NOTE, text, "Where nodes may not submit jobs, `hpc resume` goes on.")


def _fits(text: str, seconds: int, save_seconds: float | None) -> Finding:
    if save_seconds is None:
        advice = "A run says in its journal what a save takes: ask again when there is one."
        return Finding("preemption", NOTE, f"{text}; no save is known yet that could be compared.", advice)
    if save_seconds + MARGIN_SECONDS <= seconds:
        return Finding("preemption", OK, f"{text}; the last save took {save_seconds:.1f} s: fits.")
    text = f"{text}; the last save took {save_seconds:.1f} s: does not fit, and up to one interval may be lost."
    return Finding("preemption", PROBLEM, text, "Save more often: checkpoint.every_minutes.")


def _mode(survey: Survey, partition: Record) -> str:
    """How jobs of a partition are preempted; "" where they are not."""
    kind, mode = survey.text("PreemptType"), partition.get("PreemptMode") or survey.text("PreemptMode")
    if not kind or kind.endswith("none") or mode == "OFF":
        return ""
    if kind.endswith("partition_prio") and not _has_rival(survey, partition):
        return ""
    return mode


def _has_rival(survey: Survey, partition: Record) -> bool:
    """Whether a partition of higher priority has one of the same nodes."""
    nodes = {node["NodeName"] for node in survey.nodes_of(partition)}
    tier = int(partition.get("PriorityTier", "1"))
    higher = [each for each in survey.partitions if int(each.get("PriorityTier", "1")) > tier]
    return any(node["NodeName"] in nodes for each in higher for node in survey.nodes_of(each))


def _seconds(text: str) -> int:
    return int(minutes(text) * 60) if ":" in text else int(text) if text.isdigit() else 0


def state(survey: Survey, partition: Record, save_seconds: float | None) -> Iterator[Finding]:
    """Whether it starts jobs, and how many of its nodes work."""
    del save_seconds
    told = partition.get("State", "UP")
    states = [node.get("State", "") for node in survey.nodes_of(partition)]
    broken = sum(any(word in state for word in OUT_OF_USE) for state in states)
    if told != "UP":
        advice = "Choose another one in cluster.partition, or wait."
        yield Finding("state", PROBLEM, f"The partition is {told}: jobs wait in it.", advice)
    elif states and broken == len(states):
        yield Finding("state", PROBLEM, f"None of its {broken} node(s) works.", "Choose another in cluster.partition.")
    else:
        yield Finding("state", NOTE if broken else OK, f"{len(states) - broken} of {len(states)} node(s) work.")


def gpus(survey: Survey, partition: Record, save_seconds: float | None) -> Iterator[Finding]:
    """What a job can ask for, as this site spells it."""
    del save_seconds
    kinds = Counter(node.get("Gres", "") for node in survey.nodes_of(partition))
    found = {(each.kind, each.count) for text in kinds for each in resources(text) if each.name == "gpu"}
    named = [f"{count} {kind}".strip() for kind, count in sorted(found)]
    if not found:
        yield Finding("gpus", OK, "It has no GPUs: hardware=cpu.")
    elif any(not kind for kind, _ in found):
        advice = "Set cluster.gres='gpu:{gpus_per_node}' in the preset of this cluster."
        yield Finding("gpus", NOTE, f"GPUs have no type here ({', '.join(named)} on a node).", advice)
    else:
        yield Finding("gpus", OK, f"{' or '.join(named)} on a node.")


def time_limit(survey: Survey, partition: Record, save_seconds: float | None) -> Iterator[Finding]:
    """The longest life of a job; a longer run goes on in further lives."""
    del survey, save_seconds
    told = partition.get("MaxTime", "UNLIMITED")
    hours = minutes(told) / 60
    text = (
        "Jobs have no time limit."
        if hours == float("inf")
        else f"A life has at most {hours:g} h; runs go on in others."
    )
    yield Finding("time_limit", OK, text)


CHECKS: tuple[Callable[[Survey, Record, float | None], Iterator[Finding]], ...] = (preemption, state, gpus, time_limit)
