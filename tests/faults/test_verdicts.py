"""The table at the end of `make test-faults` says what pytest says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest

from tests.faults.table import FAULTS
from tests.faults.verdicts import SECONDS_TO_GO_ON, STEPS_LOST, told

Outcome = Literal["passed", "failed", "skipped"]
FIRST = FAULTS[0]


def _reports(outcome: Outcome, *figures: tuple[str, object]) -> Iterator[pytest.TestReport]:
    for test in FIRST.tests:
        yield pytest.TestReport(f"tests/{test}[20]", ("", None, ""), {}, outcome, None, "call", user_properties=figures)


@pytest.mark.parametrize(("outcome", "word"), [("passed", "survived"), ("failed", "FAILED"), ("skipped", "skipped")])
def test_the_verdict_of_a_fault_is_that_of_its_tests(outcome: Outcome, word: str) -> None:
    _, line, *_ = told(_reports(outcome), everything=True)
    assert line.split(FIRST.what)[1].split() == [word]


def test_the_worst_figures_are_told_and_faults_without_any_where_all_are_wanted() -> None:
    better, worse = [(STEPS_LOST, 0), (SECONDS_TO_GO_ON, 12.2)], [(STEPS_LOST, 9), (SECONDS_TO_GO_ON, 30.0)]
    reports = [*_reports("passed", *better), *_reports("passed", *worse)]
    _, line, *_ = told(reports, everything=False)
    assert line.split()[-3:] == ["survived", "9", "30"]
    assert len([*told(reports, everything=True)]) == 1 + len(FAULTS)
    assert [*told([], everything=False)] == []
