"""The table of faults names tests that are there, every fault once, and a reason for each that is not injected."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.faults.table import FAULTS, Fault


def test_every_fault_is_in_the_table_once() -> None:
    assert [fault.number for fault in FAULTS] == list(range(1, 69))


def _absent(fault: Fault) -> Iterator[str]:
    for test in fault.tests:
        file, _, function = test.partition("::")
        path = ROOT / "tests" / file
        if not path.exists() or not re.search(rf"^def {function}\(", path.read_text(), re.MULTILINE):
            yield test


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.number} {fault.what}")
def test_a_fault_is_injected_or_says_why_not(fault: Fault) -> None:
    assert fault.tests or fault.missing
    assert [*_absent(fault)] == []


def test_every_test_of_the_suite_is_in_the_table() -> None:
    there = re.findall(r"^def (test_\w+)\(", (ROOT / "tests/faults/test_faults.py").read_text(), re.MULTILINE)
    named = {test.partition("::")[2] for fault in FAULTS for test in fault.tests if "faults/" in test}
    assert {*there} == named
