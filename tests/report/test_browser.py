"""The page of `hpc report` as a reader has it: in Chromium, from a file, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.conftest import FakeSlurm
from tests.report.browser import opened
from tests.support.reported import HOSTILE, reported_sweep
from tests.support.sweeps import hpc

pytestmark = pytest.mark.browser
READY = "document.documentElement.dataset.ready === 'yes'"
SHOWN = "[...document.querySelectorAll('#results tbody tr')].map((row) => [...row.cells].map((cell) => cell.innerText))"


def reported(directory: Path, count: int, slurm: FakeSlurm) -> Path:
    assert hpc(slurm, "report", reported_sweep(directory, count)).exit_code == 0
    return directory / "report.html"


def rows(page: Page) -> list[list[str]]:
    """What the table shows, as far as it is drawn."""
    found: list[list[str]] = page.evaluate(SHOWN)
    return found


def info(page: Page) -> str:
    """How many rows the table says that it has."""
    return page.inner_text(".dt-info")


def test_a_report_shows_sorts_filters_and_follows_the_readers_look(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    path = reported(tmp_path / "small", 10, fake_slurm)
    with opened(path) as (page, wrong):
        page.wait_for_function(READY)
        assert len(rows(page)) == 10
        assert HOSTILE in {cell for row in rows(page) for cell in row}
        page.locator(".dt-search input").fill("failed")
        page.wait_for_function("document.querySelector('.dt-info').innerText.includes('1 to 1 of 1 ')")
        page.locator(".dt-search input").fill("")
        column = page.locator(".dt-scroll-head .dt-column-title").all_inner_texts().index("loss")
        page.locator(f".dt-scroll-head [data-dt-column='{column}'] .dtcc-button_order").click()
        largest = max(float(row[column]) for row in rows(page))
        page.wait_for_function(f"({SHOWN})[0][{column}] === '{largest:g}'")
        assert page.locator(".charts .legend .traces").count() == 10
        page.select_option("#metric", "accuracy")
        page.select_option("#view", "optimizer.lr")
        page.wait_for_function("document.querySelectorAll('.charts .boxlayer .trace').length === 5")
        assert page.locator("#timelines .trace.bars").count() >= 5
        assert page.title() == "small"
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.emulate_media(color_scheme="dark")
        page.wait_for_function("document.documentElement.classList.contains('dark')")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark != light
        for event, colour in (("beforeprint", light), ("afterprint", dark)):
            page.evaluate(f"dispatchEvent(new Event('{event}'))")
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == colour
        page.set_viewport_size({"width": 420, "height": 900})
        page.reload()
        page.wait_for_function(READY)
        assert page.evaluate("document.documentElement.scrollWidth") == 420
        axes = page.locator(".charts .cartesianlayer .bglayer, .charts .nsewdrag").first.bounding_box()
        assert axes is not None
        assert axes["width"] > 250
        assert wrong == []


@pytest.mark.faults
def test_ten_thousand_points_are_drawn_in_part(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    path = reported(tmp_path / "large", 10_000, fake_slurm)
    assert path.stat().st_size < 8e6
    with opened(path, "dark") as (page, wrong):
        page.wait_for_function(READY)
        assert "of 10,000 entries" in info(page)
        assert len(rows(page)) < 200
        page.evaluate("document.querySelector('.dt-scroll-body').scrollTop = 1e9")
        page.wait_for_function(f"({SHOWN}).some((row) => row[0] === '9999')")
        page.locator(".dt-search input").fill("device-side")
        page.wait_for_function("document.querySelector('.dt-info').innerText.includes('of 1,428 entries')")
        assert page.locator(".charts .scatterlayer .trace").count() <= 60
        assert page.evaluate("document.querySelectorAll('*').length") < 20_000
        assert wrong == []
