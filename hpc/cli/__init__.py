"""`hpc VERB`: one file per verb, imported when it is typed."""

from __future__ import annotations

from hpc.cli.lazy import LazyGroup
from hpc.environ import process_environ

VERBS = {
    "cancel": "hpc.cli.cancel:cancel_command",
    "checkpoint": "hpc.cli.checkpoint:checkpoint_command",
    "completion": "hpc.cli.completion:completion_command",
    "diff": "hpc.cli.diff:diff_command",
    "doctor": "hpc.cli.doctor:doctor_command",
    "image": "hpc.cli.image:image_command",
    "init": "hpc.cli.init:init_command",
    "logs": "hpc.cli.logs:logs_command",
    "ls": "hpc.cli.ls:ls_command",
    "report": "hpc.cli.report:report_command",
    "results": "hpc.cli.results:results_command",
    "resume": "hpc.cli.resume:resume_command",
    "retry": "hpc.cli.retry:retry_command",
    "run": "hpc.cli.typed:run_command",
    "script": "hpc.cli.typed:script_command",
    "status": "hpc.cli.status:status_command",
    "world": "hpc.cli.world:world_command",
}
"""Where each is."""

main = LazyGroup(
    VERBS,
    name="main",
    help="One PyTorch training loop, from a laptop to a Slurm cluster and back from preemption.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "color": False if process_environ().get("NO_COLOR") else None,  # https://no-color.org
    },
)
