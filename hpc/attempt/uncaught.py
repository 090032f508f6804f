"""What becomes of an error of ours that nobody catches, in a program of the user's own?"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from hpc.errors import HpcError
from hpc.say import fail

Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


def answer_uncaught_errors() -> None:
    """From here on such an error ends this process with its sentence and its exit code; a second call does nothing."""
    if not isinstance(sys.excepthook, _Sentences):
        sys.excepthook = _Sentences(sys.excepthook)


@dataclass(frozen=True)
class _Sentences:
    """Python's hook for uncaught exceptions; those of others go to whom they went before."""

    before: Hook

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, HpcError):
            self.before(kind, error, trace)
            return
        fail(error)
        raise SystemExit(error.exit_code)  # Python takes it from its hook, and runs what was registered for the end
