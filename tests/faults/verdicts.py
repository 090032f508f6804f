"""What has become of every fault of the table, told from pytest's reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from tests.faults.table import FAULTS, Fault

NAMES = frozenset(test for fault in FAULTS for test in fault.tests)
"""Of all tests in the table."""
STEPS_LOST, SECONDS_TO_GO_ON = "steps lost", "seconds to the next new step"
"""What a test reports of its run (pytest's user_properties)."""


def name_of(node: str) -> str:
    """A test as the table names it, from pytest's name of it, whose parameters come last."""
    return node.removeprefix("tests/").partition("[")[0]


def told(reports: Iterable[pytest.TestReport], everything: bool) -> Iterator[str]:
    """The lines of a table.

    Args:
        reports: Of the phases of all tests.
        everything: Whether faults are told, too, of which no test has reported a figure.
    """
    of: dict[str, list[pytest.TestReport]] = {}
    for report in reports:
        of.setdefault(name_of(report.nodeid), []).append(report)
    heading = f"{'':>3} {'fault':44} {'verdict':12} {STEPS_LOST:>10} {SECONDS_TO_GO_ON:>29}  not injected"
    for fault in FAULTS:
        found = [report for test in fault.tests for report in of.get(test, [])]
        figures = [_worst(found, name) for name in (STEPS_LOST, SECONDS_TO_GO_ON)]
        if everything or any(figures):
            yield from [heading] if heading else []
            heading = ""
            lost, seconds = figures
            begin = f"{fault.number:>3} {fault.what:44} {verdict(fault, found):12}"
            yield f"{begin} {lost:>10} {seconds:>29}  {fault.missing}".rstrip()


def verdict(fault: Fault, reports: list[pytest.TestReport]) -> str:
    """One word for a fault."""
    if not fault.tests:
        return "not injected"
    if any(report.failed for report in reports):
        return "FAILED"
    if any(report.passed and report.when == "call" for report in reports):
        return "survived"
    return "skipped" if reports else "not run"


def _worst(reports: list[pytest.TestReport], name: str) -> str:
    """The largest of some figures, as a text; "" where nobody has reported any."""
    figures = [float(str(value)) for report in reports for key, value in report.user_properties if key == name]
    return f"{max(figures):.0f}" if figures else ""
