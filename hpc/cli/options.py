"""Which options have several verbs?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def json_option(page: str) -> Callable[..., Any]:
    """--json, whose answer a page of the documentation explains."""
    return click.option("--json", "as_json", is_flag=True, help=f"JSON instead of text; see {page}.")
