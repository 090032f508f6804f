"""Verbs that do not run the user's code import nothing from where they are typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hpc.cli import main
from tests.conftest import ROOT, clean_environment

HOSTILE = (
    *("json", "re", "typing", "dataclasses", "socket", "logging", "pathlib", "hydra", "omegaconf", "submitit"),
    *("torch", "numpy", "click", "yaml", "xxhash", "hydra_plugins", "safetensors", "cloudpickle", "zipfile", "csv"),
)
RUN_USERS_CODE = {"run", "script"}
ARGUMENTS: dict[str, list[str]] = {
    "checkpoint ls": ["run"],
    "checkpoint verify": ["run"],
    "checkpoint export": ["run"],
    "world": [],
}
"""Of verbs that need some to do their work; the others are typed with a run."""
ALL_AT_ONCE = """
import sys
sys.path[0], sys.argv[0] = "/nowhere/bin", "hpc"
import json
from hpc.cli import main
for arguments in json.loads(sys.argv.pop()):
    try:
        main(arguments, standalone_mode=False)
    except BaseException as error:
        print(type(error).__name__, error)
"""
TRAINING = ["run", "experiment.target=job.train", "run_dir=out", "hardware=laptop"]


def verbs(group: click.Command, above: tuple[str, ...] = ()) -> list[str]:
    """Every command, with the groups above it."""
    if not isinstance(group, click.Group):
        return [" ".join(above)]
    context = click.Context(group)
    commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return [verb for name, command in commands.items() if command for verb in verbs(command, (*above, name))]


def imported(place: Path, *command: str) -> str:
    """Which modules of the current directory a command has imported."""
    for name in (*HOSTILE, "job"):
        (place / f"{name}.py").write_text(f"open('imported', 'a').write('{name} ')\nraise ImportError\n")
    (place / "run" / "checkpoints").mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, *command], cwd=place, env=clean_environment(), capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.stdout + done.stderr
    path = place / "imported"
    return path.read_text() if path.exists() else ""


def test_no_verb_imports_anything_from_the_current_directory(tmp_path: Path) -> None:
    typed = [[*verb.split(), *ARGUMENTS.get(verb, ["run"])] for verb in sorted({*verbs(main)} - RUN_USERS_CODE)]
    assert ["checkpoint", "export", "run"] in typed
    assert imported(tmp_path, "-c", ALL_AT_ONCE, json.dumps(typed)) == ""


@pytest.mark.parametrize("verb", ["world", "checkpoint export run"])
def test_nor_does_it_by_the_name_of_the_module(verb: str, tmp_path: Path) -> None:
    """What Python itself needs for `-m` (contextlib, for one) is taken from elsewhere only by `python -P -m`."""
    assert imported(tmp_path, "-m", "hpc", *verb.split()) == ""


@pytest.mark.parametrize("command", [("-m", "hpc"), ("-c", ALL_AT_ONCE)], ids=["python -m hpc", "hpc"])
def test_training_does_import_what_lies_there(command: tuple[str, str], tmp_path: Path) -> None:
    """Else the tests above could not fail."""
    arguments = TRAINING if command[0] == "-m" else [json.dumps([TRAINING])]
    assert imported(tmp_path, *command, *arguments) != ""


@pytest.mark.parametrize("verb", [["status", "/run"], ["ls"], ["run"], ["script"]], ids=" ".join)
def test_a_directory_that_was_removed_is_one_sentence(verb: list[str], tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = f"import os, sys; os.rmdir({str(gone)!r}); sys.argv = ['hpc', *{verb}]; from hpc.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=gone, env=clean_environment(), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (
        78, ["hpc: The directory that this is typed in must be there, but was removed: change to another one."]
    )  # fmt: skip


@pytest.mark.parametrize(
    "program",
    [
        ["-m", "hpc", "ls"],
        ["-m", "hpc", "--help"],
        [str(ROOT / "run.py"), "--help"],
        [str(ROOT / "run.py"), "--cfg", "job"],
    ],
    ids=["ls", "help", "run_help", "run_cfg"],
)
def test_a_full_device_for_what_is_printed_is_one_sentence(program: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, *program],
            cwd=tmp_path, env=clean_environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=120,
            check=False,
        )  # fmt: skip
    assert done.returncode == 78
    assert done.stderr.splitlines()[:1] == [
        "hpc: What is printed must have room where it is written, but the device is full."
    ]
