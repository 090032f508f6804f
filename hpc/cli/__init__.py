"""`hpc VERB`: one file per verb, imported when it is typed."""

from __future__ import annotations

import importlib

import click

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
"""Where each is; what others import takes longer than `hpc status` has."""


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the alphabet."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, imported now."""
        del ctx
        if cmd_name not in VERBS:
            return None
        module, _, name = VERBS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """One PyTorch training loop, from a laptop to a Slurm cluster and back from preemption."""
