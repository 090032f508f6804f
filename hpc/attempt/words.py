"""What does the text of an exception say: that another rank has gone, that memory was short, or something of its own?

An echo is what a rank says because another one has failed. It never explains a failure, however early it was said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

OWN, WORKER, LATE, ECHO = "own", "worker", "late", "echo"
"""Of this rank itself; of a worker process of this rank, which somebody killed; a wait for other ranks that took too
long; and of another rank that has gone."""

LATE_WORDS = re.compile(
    r"Timed out waiting \d+ ?ms|Watchdog caught collective operation timeout|wait timeout after|"
    r"timed out in \d+|collective operation timeout|Rank \d+ timed out|failed to pass monitoredBarrier|"
    r"Some NCCL operations have failed or timed out|Timed out after \d+ seconds waiting for clients|"
    r"must come within runtime\.rendezvous_timeout_seconds|must find rank 0, but nobody answered|"
    r"No rank has gone on for|Application timeout caused pair closure|Wait timeout|Socket Timeout",
    re.IGNORECASE,
)
"""Of gloo, ProcessGroupNCCL, TCPStore, and our own rendezvous."""
ECHO_WORDS = re.compile(
    r"Connection closed by peer|Connection reset by peer|Connection refused|Broken pipe|Socket closed|"
    r"Connection was likely closed|failed to recv, got 0 bytes|Failed to recv|recvValue failed|sendBytes failed|"
    r"NCCL communicator was aborted|ncclRemoteError|remote process exited|remote peer|peer may have|"
    r"connectFullMesh failed|Gloo connect|must reach (?:the|rank 0's) store|"
    r"DistNetworkError|ConnectionResetError|BrokenPipeError|ConnectionAbortedError|Cannot send after transport",
    re.IGNORECASE,
)
"""Of gloo, NCCL, TCPStore, sockets and pipes."""
WORKER_WORDS = re.compile(r"DataLoader worker \(pid\(?s?\)? ?[\d, ]+\) (?:is killed by signal|exited unexpectedly)")
NAMED_PEERS = re.compile(
    r"see the output of rank ([\d, ]+)|Rank (\d+) (?:failed to pass|timed out)|"
    r"rank (\d+) on \S+ is (?:stopped|silent|not going on)"
)
"""Who is waited for, where a late rank knows it: by our rendezvous, by monitored_barrier, and by our watchdog."""
CUDA_MEMORY = re.compile(r"CUDA out of memory|CUDA error: out of memory|HIP out of memory|torch\.OutOfMemoryError")
HOST_MEMORY = re.compile(
    r"MemoryError|Cannot allocate memory|can't allocate memory|not enough memory|std::bad_alloc|out of memory",
    re.IGNORECASE,
)
"""As Python, torch, C++ and the operating system spell it."""
CONTROL_FLOW = ("StopIteration", "StopAsyncIteration", "GeneratorExit", "Empty", "Full", "KeyError", "AttributeError")
"""What is raised and caught in the course of things; an echo while one of these is handled is still an echo."""


def sort_of(chain: Sequence[str]) -> str:
    """What an exception tells of whose failure it is.

    Args:
        chain: The exception, and those that it was raised from or while handling, the raised one first; each as
            `Type: message`.

    Returns:
        OWN, WORKER, LATE or ECHO. Where a chain has an echo, what lies below it decides: a rank that fails, and then
        meets the others' end in its own cleaning up, has failed by itself.
    """
    root = next((each for each in reversed(chain) if not each.startswith(CONTROL_FLOW)), chain[0] if chain else "")
    return sort_of_words(root)


def telling(chain: Sequence[str]) -> str:
    """The exception of a chain that says what its rank failed of: not an echo, where it failed by itself before."""
    is_own = sort_of(chain) == OWN
    return next((each for each in chain if not is_own or sort_of_words(each) == OWN), "")


def sort_of_words(text: str) -> str:
    """The same for one exception."""
    for sort, words in ((WORKER, WORKER_WORDS), (LATE, LATE_WORDS), (ECHO, ECHO_WORDS)):
        if words.search(text):
            return sort
    return OWN


def waited_for(text: str) -> tuple[int, ...]:
    """The ranks that a late rank has waited for, where it names them."""
    found = "".join(f"{''.join(groups)} " for groups in NAMED_PEERS.findall(text))
    return tuple(int(number) for number in re.findall(r"\d+", found))


def memory_of(text: str) -> str:
    """Whose memory was short: "CUDA", "host", or "" where none was."""
    return "CUDA" if CUDA_MEMORY.search(text) else "host" if HOST_MEMORY.search(text) else ""
