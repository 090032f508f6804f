"""Tests here open Runtimes in the test process."""

from tests.support.process_state import own_process_state

__all__ = ["own_process_state"]
