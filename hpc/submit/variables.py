"""Which environment variables does a job get, which can it not have, and which does nobody else see?

Those with secrets lie in a file of their own, which the script reads: so the script can be printed, and kept by the
scheduler.
"""

from __future__ import annotations

import hashlib
import shlex
from functools import cache
from pathlib import Path

from hpc.config import Cluster
from hpc.config.secrets import MASK, holds_secret
from hpc.errors import ConfigurationError
from hpc.files import PRIVATE_MODE, replace_text
from hpc.submit.plan import Plan
from hpc.world.launchers import is_a_launchers

PARAMETERS = ("OMPI_MCA_", "PMIX_MCA_", "PRTE_MCA_")
"""Settings of MPI libraries, which say nothing about ranks."""
SHELLS_OWN = frozenset(
    (
        *("_", "BASHOPTS", "BASHPID", "COMP_WORDBREAKS", "COPROC", "DIRSTACK", "EPOCHREALTIME", "EPOCHSECONDS"),
        *("EUID", "FUNCNAME", "GROUPS", "HISTCMD", "IFS", "LINENO", "OLDPWD", "OPTARG"),
        *("OPTERR", "OPTIND", "PIPESTATUS", "POSIXLY_CORRECT", "PPID", "PS4", "PWD", "RANDOM"),
        *("SECONDS", "SHELLOPTS", "SHLVL", "SRANDOM", "UID"),
    )
)
"""What bash sets by itself, keeps read-only, or works by (bash 5.2, bash(1))."""
OUR_OWN = ("hpc_", "BASH_", "SUBMITIT_")


def check_variables(cluster: Cluster) -> None:
    """Look at the names in cluster.environment, whose form is right already.

    Raises:
        ConfigurationError: One of them belongs to somebody else.
    """
    for name in cluster.environment:
        if is_a_launchers(name) and not name.startswith(PARAMETERS):
            raise ConfigurationError(
                f"cluster.environment must not have {name}, because the launcher of a job says with it which rank is "
                "where: options of srun go into cluster.srun."
            )
        if name in SHELLS_OWN or name.startswith(OUR_OWN):
            raise ConfigurationError(
                f"cluster.environment must not have {name}, because the batch script needs it for itself."
            )


def exports(plan: Plan, python_path: str) -> list[str]:
    """The lines of the script that set them.

    Args:
        plan: Of the script.
        python_path: Where the task imports from, after what the site has set.
    """
    environment = plan.cluster.environment
    path = ":".join(filter(None, (environment.get("PYTHONPATH"), python_path)))
    secret = [name for name, value in environment.items() if holds_secret(name, value)]
    seen = {name: value for name, value in {**environment, "PYTHONPATH": path}.items() if name not in secret}
    shown = " ".join(f"{name}={MASK}" for name in secret)
    read = [f". {shlex.quote(str(_file(plan)))} || exit 78 # {shown}"] if secret else []
    return [*map(_export, seen.items()), *read]


def write_secrets(plan: Plan) -> None:
    """Keep them where the script reads them, if there are any.

    Raises:
        OSError: The file system says no.
    """
    text = _secret_lines(plan)
    if text:
        replace_text(_file(plan), text, PRIVATE_MODE)


def _secret_lines(plan: Plan) -> str:
    variables = [pair for pair in plan.cluster.environment.items() if holds_secret(*pair)]
    return "".join(f"{_export(pair)}\n" for pair in variables)


def _file(plan: Plan) -> Path:
    return plan.log_directory / f"environment_{_digest(_secret_lines(plan))}.sh"


@cache
def _digest(text: str) -> str:
    """Of the content, so that no job reads what was written for another one; slow, so that nobody guesses by it."""
    return hashlib.pbkdf2_hmac("sha256", text.encode(), b"hpc", 100_000).hex()[:16]


def _export(variable: tuple[str, str]) -> str:
    return f"export {variable[0]}={shlex.quote(variable[1])}"
