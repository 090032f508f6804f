"""Chromium without a screen, and what becomes of the tests that need it where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

PATIENCE_MILLISECONDS = 120_000


def find_chromium() -> str:
    """Its path.

    Raises:
        Skipped: pytest's own, where there is none.
        Failed: pytest's own, where there is none and CI=true: a skip would go unseen.
    """
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is not None:
        return found
    reason = "Chromium must be on PATH: tests/report/install.sh installs Debian's package."
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextmanager
def opened(path: Path, look: str = "light") -> Iterator[tuple[Page, list[str]]]:
    """The page of a file, and everything that went wrong in it so far; without a network.

    Args:
        path: The file.
        look: light or dark, as the reader prefers.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1400, "height": 1000}, color_scheme=look, offline=True)  # type: ignore[arg-type]
        page, wrong = context.new_page(), list[str]()
        page.set_default_timeout(PATIENCE_MILLISECONDS)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.goto(path.as_uri())
        yield page, wrong
        browser.close()
