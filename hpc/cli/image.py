"""`hpc image`: the recipe of an image for jobs, or the image itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from hpc.cli.sweeps import answering, json_option
from hpc.errors import ConfigurationError
from hpc.submit.image import recipe, write_context

DOCKERFILE, DEFINITION = "Dockerfile", "project.def"
COMMANDS = {
    "podman": ("podman", "build", "--tag={name}", "."),
    "docker": ("docker", "build", "--tag={name}", "."),
    "apptainer": ("apptainer", "build", "{name}", DEFINITION),
    "charliecloud": ("ch-image", "build", "--tag={name}", "."),
}
"""By tool; typed in the directory that has the recipe."""


@click.command("image")
@click.argument("project", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--build", is_flag=True, help="Build it; without this, print the recipe.")
@click.option("--print", "printed", is_flag=True, help="Print the recipe, which is what happens without --build.")
@click.option("--tool", type=click.Choice(list(COMMANDS)), default="podman", show_default=True, help="What builds it.")
@click.option("-t", "--tag", "name", help="Its name; for apptainer, the file.")
@click.option("--base", help="The image with torch that it starts from; else pytorch/pytorch with the torch of here.")
@json_option
@answering
def image_command(
    project: Path, build: bool, printed: bool, tool: str, name: str | None, base: str | None, as_json: bool
) -> None:
    """An image for jobs with hpc, the project in PROJECT, and what both need."""
    if not build:
        text = recipe(DEFINITION if tool == "apptainer" else DOCKERFILE, base)
        click.echo(json.dumps({"format": 1, "tool": tool, "recipe": text}) if as_json else text.rstrip("\n"))
        return
    if printed or not name:
        raise ConfigurationError("`hpc image` must have either --print, or --build with a name: `-t project:1`.")
    command = [word.format(name=Path(name).absolute() if tool == "apptainer" else name) for word in COMMANDS[tool]]
    if shutil.which(command[0]) is None:
        raise ConfigurationError(f"{command[0]} must be on PATH to build an image, but is not: choose another --tool.")
    with tempfile.TemporaryDirectory(prefix="hpc-image-") as directory:
        write_context(Path(directory), project, base)
        code = subprocess.run(command, cwd=directory, check=False, stdout=sys.stderr if as_json else None).returncode
    if code:
        raise SystemExit(code)
    if as_json:
        click.echo(json.dumps({"format": 1, "tool": tool, "image": name}))
