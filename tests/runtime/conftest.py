"""What tests of the runtime share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch

from hpc import preemption
from hpc.runtime.process_group import close_process_group


@pytest.fixture(autouse=True)
def own_process_state() -> Iterator[None]:
    """A Runtime takes over this process: give it back."""
    numbers = (*preemption.SIGNALS, signal.SIGCONT)
    handlers = {number: signal.getsignal(number) for number in numbers}
    threads = torch.get_num_threads()
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)
    preemption.stop_requests.cache_clear()
    close_process_group()
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
