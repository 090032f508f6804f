"""`hpc VERB`: one file per verb, imported when it is typed."""

from __future__ import annotations

from hpc.cli.lazy import LazyGroup, Verb
from hpc.environ import process_environ

VERBS = {
    "cancel": Verb("hpc.cli.cancel:cancel_command", "End what is queued or runs."),
    "checkpoint": Verb("hpc.cli.checkpoint:checkpoint_command", "What a run has saved: list, verify, export."),
    "completion": Verb("hpc.cli.completion:completion_command", "Complete words in the shell."),
    "diff": Verb("hpc.cli.diff:diff_command", "What differs between two runs."),
    "doctor": Verb("hpc.cli.doctor:doctor_command", "Which promises hold here."),
    "image": Verb("hpc.cli.image:image_command", "Print or build an image for containers."),
    "init": Verb("hpc.cli.init:init_command", "Write files to begin with."),
    "logs": Verb("hpc.cli.logs:logs_command", "What a point has written."),
    "ls": Verb("hpc.cli.ls:ls_command", "My sweeps, the newest first."),
    "report": Verb("hpc.cli.report:report_command", "One HTML file about a sweep."),
    "results": Verb("hpc.cli.results:results_command", "What came out, as a table."),
    "resume": Verb("hpc.cli.resume:resume_command", "Go on with what has stopped."),
    "retry": Verb("hpc.cli.retry:retry_command", "Submit failed points again."),
    "run": Verb("hpc.cli.typed:run_command", "Train here, or submit with -m."),
    "script": Verb("hpc.cli.typed:script_command", "Print what -m would send."),
    "status": Verb("hpc.cli.status:status_command", "Where every point stands, and why."),
    "world": Verb("hpc.cli.world:world_command", "Which rank this process is, and who says so."),
}
"""Where each is, and what it is for."""

main = LazyGroup(
    VERBS,
    name="main",
    help="One PyTorch training loop, from a laptop to a Slurm cluster and back from preemption.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "color": False if process_environ().get("NO_COLOR") else None,  # https://no-color.org
    },
)
