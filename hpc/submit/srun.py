"""Which options may a site add to srun, which starts the ranks?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpc.config import Settings
from hpc.errors import ConfigurationError
from hpc.submit.container import runtime_of
from hpc.submit.options import OWNED
from hpc.submit.plan import Plan

OPTION = re.compile(r"--([A-Za-z][\w-]+)(?:=(.*))?", re.DOTALL | re.ASCII)
PLANS_OWN = (
    *("nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "time", "output", "error"),
    *("partition", "account", "qos", "constraint"),
)
"""What a step takes from its job, or the script says itself; of two of them one would be lost in silence."""
NOT_THE_RANKS = (
    *("kill-on-bad-exit", "multi-prog", "pty", "jobid", "no-allocate", "test-only", "het-group"),
    *("help", "usage", "version"),
)
"""What would make srun do something else than to start all ranks, and to end them together."""


def asked_of_srun(asked: Settings | Plan) -> Iterator[tuple[str, str, str]]:
    """What srun is told besides the plan's own; pyxis is told its options by srun, too.

    Yields:
        The setting, the name of the option, and its value or "".

    Raises:
        ConfigurationError: A word is no whole option, or one that the plan sets itself.
    """
    settings = {"cluster.srun": asked.cluster.srun}
    if runtime_of(asked) == "pyxis":
        settings["container.options"] = asked.container.options
    for setting, words in settings.items():
        for word in words:
            yield (setting, *_option(word, setting))


def check_srun(settings: Settings) -> None:
    """Refuse what srun may not be told.

    Raises:
        ConfigurationError: As `asked_of_srun`.
    """
    for _ in asked_of_srun(settings):
        pass


def _option(word: str, setting: str) -> tuple[str, str]:
    found = OPTION.fullmatch(word)
    if found is None:
        raise ConfigurationError(
            f"{setting} must have whole options, each of them one word such as --cpu-bind=cores, but has {word!r}."
        )
    name, value = found[1].replace("_", "-"), found[2] or ""
    _check(name, value, setting)
    return name, value


def _check(name: str, value: str, setting: str) -> None:
    """Slurm takes the beginning of a name for the name."""
    meant = next((each for each in (*PLANS_OWN, *NOT_THE_RANKS) if each.startswith(name)), name)
    if meant in PLANS_OWN:
        raise ConfigurationError(f"{setting} must not have --{name}: it is set by {OWNED[meant]}.")
    if meant in NOT_THE_RANKS:
        raise ConfigurationError(
            f"{setting} must not have --{name}: all ranks of the plan are started, and end together when one fails."
        )
    if name == "export" and "ALL" not in value.split(","):
        raise ConfigurationError(
            f"{setting} must have --export=ALL, or more behind ALL and a comma, but has --export={value}: ranks need "
            "what the script sets up."
        )
