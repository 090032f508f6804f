"""What takes time in a step? torch.profiler writes a trace for each rank, for Perfetto or chrome://tracing."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from hpc.config import Profile
from hpc.files import make_directory, narrow_umask
from hpc.run.directory import RunDirectory

NEVER = sys.maxsize


class ProfilerWindow:
    """Profiles `options.steps` steps of this rank, in each life that takes step `options.start_step`.

    Args:
        options: Which steps.
        directory: The point's; traces go to profile/.
        rank: This rank.
        device: Where it computes.
    """

    def __init__(self, options: Profile, directory: Path, rank: int, device: torch.device) -> None:
        self.options = options
        self.path = RunDirectory(directory).profile / f"rank_{rank}.json.gz"
        self.activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
        self.next_step = NEVER if options.start_step is None else options.start_step - 1
        self._profile: profile | None = None

    def after(self, step: int) -> None:
        """Begin or end profiling; call it after each step, with the number of steps done."""
        if step > self.next_step:
            self.next_step = NEVER  # this life began behind it
        if step != self.next_step:
            return
        if self._profile is None:
            self._profile = profile(activities=self.activities, profile_memory=True)
            self._profile.start()
            self.next_step = step + self.options.steps
        else:
            self.close()

    def close(self) -> None:
        """Write the trace if profiling is under way, as where a run ends inside the window."""
        self.next_step = NEVER
        if self._profile is None:
            return
        self._profile.stop()
        make_directory(self.path.parent)
        temporary = self.path.with_name(f"{secrets.token_hex(8)}.{self.path.name}")  # torch goes by its ending
        with narrow_umask():
            self._profile.export_chrome_trace(str(temporary))
        temporary.replace(self.path)
        self._profile = None
