"""docs/doctor.md and docs/sites.md keep their word: names, levels, keys and command lines are those of the code."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields

import pytest
from click import Command

from hpc.cli.doctor import as_object, doctor_command
from hpc.cli.init_site import site_command
from hpc.doctor import controller, machine, partitions, place
from hpc.doctor.finding import LEVELS, Finding
from hpc.doctor.look import Answer
from tests.conftest import ROOT

DOCTOR, SITES = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("doctor", "sites"))
TYPED = [
    (command, shlex.split(line)[len(name.split()) :])
    for name, command in (("hpc doctor", doctor_command), ("hpc init site", site_command))
    for line in (DOCTOR + SITES).splitlines()
    if line.startswith(name)
]


@pytest.mark.parametrize(("command", "arguments"), TYPED, ids=[" ".join(words) for _, words in TYPED])
def test_what_the_pages_type_can_be_typed(command: Command, arguments: list[str]) -> None:
    command.make_context("typed", list(arguments))


def test_the_pages_type_something() -> None:
    assert len(TYPED) == 6


def names_of(about: str) -> set[str]:
    (row,) = re.findall(rf"^\| {re.escape(about)} \| (.*) \|$", DOCTOR, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row))


def test_every_check_is_named() -> None:
    assert names_of("cluster") == {check.__name__ for check in controller.CHECKS} | {"controller"}
    assert names_of("partition NAME") == {check.__name__ for check in partitions.CHECKS}
    here = {check.__name__ for check in (*place.CHECKS, *machine.CHECKS)}
    assert names_of("this machine") == here - {"torch_fit"} | {"torch"}


def test_the_answer_for_programs_has_the_keys_of_the_page() -> None:
    answer = as_object(Answer("lab", "22.05.8", (Finding("a", "ok", "b."),)))
    assert set(answer) == {"format", "cluster", "release", "findings"}
    assert all(f"`{key}`" in DOCTOR for key in answer)
    assert {field.name for field in fields(Finding)} == {"check", "level", "text", "advice", "about"}
    assert all(f"`{level}`" in DOCTOR for level in LEVELS)
