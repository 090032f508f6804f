"""Does a plan keep the rules of the site it goes to? They stand in the preset of its cluster: docs/sites.md."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping

from hpc.config import Cluster
from hpc.config.schema import OptionRule, SiteLimit
from hpc.errors import SubmissionError
from hpc.submit.environment import variables_of
from hpc.submit.options import GPUS, OWNED
from hpc.submit.plan import Plan
from hpc.submit.script import asked_options
from hpc.submit.srun import asked_of_srun


def check_site(plan: Plan, environ: Mapping[str, str]) -> None:
    """Compare what would be sent with what the site's preset demands, refuses and limits.

    Args:
        plan: What is asked.
        environ: The user's wishes for sbatch stand here, too: SBATCH_ACCOUNT.

    Raises:
        SubmissionError: An option is missing, is refused there, or is over a limit; it names the option and the rule.
    """
    asked = _asked(plan, environ)
    broken = (*_missing(plan.cluster, asked), *_refused(plan.cluster, asked), *_over(plan))
    if broken:
        raise SubmissionError(f"{broken[0]}{_source(plan.cluster)}.")


def most_jobs(cluster: Cluster) -> int | None:
    """How many jobs the site takes of one user where these go; None where the preset does not say."""
    return min((row.submitted_jobs for row in _rows(cluster) if row.submitted_jobs), default=None)


def _asked(plan: Plan, environ: Mapping[str, str]) -> dict[str, list[tuple[str, str]]]:
    """Every option by its name: the settings that ask for it, and the values."""
    cluster = plan.cluster
    found: dict[str, list[tuple[str, str]]] = {}
    for name in {*cluster.required, *cluster.forbidden}:
        told = [(variable, environ[variable]) for variable in variables_of(name) if environ.get(variable)]
        found[name] = told
    for name, value in asked_options(plan).items():
        found[_whole(name, found)] = [(_setting(name), value)]  # what the script says wins over the environment
    for setting, name, value in asked_of_srun(plan):
        found.setdefault(_whole(name, found), []).append((setting, value))
    return found


def _whole(name: str, ruled: Iterable[str]) -> str:
    """Slurm takes the beginning of a name for the name; some names are the beginnings of others."""
    if name in (*OWNED, *GPUS, "export"):
        return name
    return next((each for each in ruled if each.startswith(name)), name)


def _setting(name: str) -> str:
    return OWNED.get(name, f"cluster.sbatch.{name}")


def _missing(cluster: Cluster, asked: Mapping[str, list[tuple[str, str]]]) -> Iterator[str]:
    for name, rule in cluster.required.items():
        if not asked.get(name):
            shape = f" to match {rule.matches}" if rule.matches else ""
            yield f"{_setting(name)} must be set{shape} on {_name(cluster)}, but --{name} is missing: {rule.why}"
        for setting, value in asked.get(name, []):
            if rule.matches and not re.fullmatch(rule.matches, value):
                yield f"{setting} must match {rule.matches} on {_name(cluster)}, but --{name} is {value}: {rule.why}"


def _refused(cluster: Cluster, asked: Mapping[str, list[tuple[str, str]]]) -> Iterator[str]:
    for name, rule in cluster.forbidden.items():
        for setting, value in asked.get(name, []):
            if _is_meant(rule, value):
                shown = f"--{name}={value}" if value else f"--{name}"
                yield f"{setting} must not ask for {shown} on {_name(cluster)}: {rule.why}"


def _is_meant(rule: OptionRule, value: str) -> bool:
    return rule.matches is None or re.fullmatch(rule.matches, value) is not None


def _over(plan: Plan) -> Iterator[str]:
    """Rows about one place are steps by size: the smallest that holds the job's nodes is the one that counts."""
    nodes, asked = plan.hardware.nodes, plan.hardware.time_limit_minutes
    rows = sorted(_rows(plan.cluster), key=_most_nodes)
    row = next((each for each in rows if _most_nodes(each) >= nodes), None)
    if rows and row is None:
        place = _place(plan.cluster, rows[-1])
        yield f"hardware.nodes must be at most {rows[-1].nodes} on {place}, but is {nodes}"
    elif row is not None and row.time_limit_minutes is not None and row.time_limit_minutes < asked:
        size = f", for at most {row.nodes} node(s)" if row.nodes and len(rows) > 1 else ""
        place = _place(plan.cluster, row)
        yield f"hardware.time_limit_minutes must be at most {row.time_limit_minutes} on {place}{size}, but is {asked}"


def _most_nodes(row: SiteLimit) -> float:
    return math.inf if row.nodes is None else row.nodes


def _rows(cluster: Cluster) -> list[SiteLimit]:
    """Those about where the job goes; a row that names its partition or QOS is more special than one that does not."""
    partitions = [name.strip() for name in (cluster.partition or "").split(",")]
    fitting = [
        row for row in cluster.limits
        if row.partition in (None, *partitions) and row.qos in (None, cluster.qos)
    ]  # fmt: skip
    names = [(row.partition is not None) + (row.qos is not None) for row in fitting]
    return [row for row, count in zip(fitting, names, strict=True) if count == max(names)]


def _place(cluster: Cluster, row: SiteLimit) -> str:
    named = [f"{word} {name}" for word, name in (("partition", row.partition), ("QOS", row.qos)) if name]
    return f"{_name(cluster)} ({', '.join(named)})" if named else _name(cluster)


def _name(cluster: Cluster) -> str:
    return cluster.site or "this site"


def _source(cluster: Cluster) -> str:
    told = ", ".join(filter(None, (cluster.source, cluster.checked_on)))
    return f" ({told})" if told else ""
