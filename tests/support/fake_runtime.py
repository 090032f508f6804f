"""Stands for a container runtime on PATH: `python fake_runtime.py NAME ...` records what it is asked, and runs it.

It does with the environment and the working directory what the real one does, and shares every file with the host.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path


def main(directory: str, name: str, *words: str) -> None:
    """Become the program that is to run inside."""
    inside, command = RUNTIMES[name](list(words))
    record = {"argv": [name, *words], "pid": os.getpid(), "environ": inside}
    with Path(directory, "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(record) + "\n")
    os.chdir(_value(words, "--pwd") or _value(words, "--workdir") or _value(words, "--cd"))
    os.execvpe(command[0], command, {"PATH": "/usr/bin:/bin", **inside})


def _apptainer(words: list[str]) -> tuple[dict[str, str], list[str]]:
    image = next(number for number, word in enumerate(words) if number and not word.startswith("-"))
    prefix = "APPTAINERENV_"
    inside = {k.removeprefix(prefix): v for k, v in os.environ.items() if k.startswith(prefix)}
    if "APPTAINER_NO_EVAL" not in os.environ:
        inside = {name: re.sub(r"\$\w*|[`\"]", "", value) for name, value in inside.items()}
    return inside, words[image + 1 :]


def _podman(words: list[str]) -> tuple[dict[str, str], list[str]]:
    image = next(number for number, word in enumerate(words) if number and not word.startswith("-"))
    asked = [word.removeprefix("--env=") for word in words[:image] if word.startswith("--env=")]
    inside = {name.partition("=")[0]: name.partition("=")[2] or os.environ[name] for name in asked}
    return inside, [_value(words, "--entrypoint"), *words[image + 1 :]]


def _charliecloud(words: list[str]) -> tuple[dict[str, str], list[str]]:
    if words == ["--help"]:
        sys.exit("      --write-fake")
    return dict(os.environ), words[words.index("--") + 1 :]


def _value(words: tuple[str, ...] | list[str], option: str) -> str:
    return next((word.partition("=")[2] for word in words if word.startswith(f"{option}=")), "")


RUNTIMES = {"apptainer": _apptainer, "podman": _podman, "docker": _podman, "ch-run": _charliecloud}

if __name__ == "__main__":
    main(*sys.argv[1:])
