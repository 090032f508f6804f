"""A Runtime takes over the process it runs in; tests give it back."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest
import torch

from hpc.connect.process_group import close_process_group
from hpc.runtime.loops import trained_here
from hpc.stop import requests


@pytest.fixture(autouse=True)
def own_process_state() -> Iterator[None]:
    """A Runtime takes over this process: give it back."""
    numbers = (*requests.SIGNALS, signal.SIGCONT)
    handlers = {number: signal.getsignal(number) for number in numbers}
    threads, hook = torch.get_num_threads(), sys.excepthook
    yield
    sys.excepthook = hook
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)
    requests.stop_requests.cache_clear()
    close_process_group()
    in_another_process()
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def in_another_process() -> None:
    """What comes next is a later life of a run: forget which loops this process has finished."""
    trained_here().clear()
