"""How much of the machine does a run use? Memory of host and device, and the share of the GPU's peak arithmetic."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from dataclasses import dataclass

import psutil
import torch

GIGABYTE = 1e9

PEAK_TERAFLOPS = (
    ("B200", 2250.0),  # NVIDIA B200 data sheet
    ("GH200", 989.4),  # NVIDIA Grace Hopper data sheet
    ("H200", 989.4),  # NVIDIA H200 data sheet, SXM
    ("H100 PCIE", 756.0),  # NVIDIA H100 data sheet
    ("H100 NVL", 835.5),
    ("H100", 989.4),
    ("A100", 312.0),  # NVIDIA A100 data sheet
    ("A40", 149.7),  # NVIDIA A40 data sheet
    ("A10", 125.0),  # NVIDIA A10 data sheet
    ("L40S", 362.0),  # NVIDIA L40S data sheet
    ("L4", 121.0),  # NVIDIA L4 data sheet
    ("V100", 125.0),  # NVIDIA V100 data sheet: fp16
    ("T4", 65.0),  # NVIDIA T4 data sheet: fp16
    ("MI300X", 1307.4),  # AMD Instinct MI300X data sheet
    ("MI250X", 191.5),  # AMD Instinct MI250X data sheet: half of it, because a device is one of its two dies
)
"""A part of the GPU's name in torch, and its dense 16-bit matrix rate in TFLOP/s; the first part that fits counts.

Data sheets of the H, L and B series give the rate with sparsity, which is twice as high.
"""


@dataclass(frozen=True)
class Work:
    """What a sample costs.

    Args:
        unit: What speed is counted in: tokens or samples.
        units_per_sample: How many units a sample has.
        flops_per_sample: Floating-point operations of forward and backward pass; None where it is not known.
    """

    unit: str
    units_per_sample: int
    flops_per_sample: float | None

    def utilization(self, samples_per_second: float, peak_flops: float | None) -> float | None:
        """Model FLOP/s over all GPUs' peak (Chowdhery et al., "PaLM", 2022, appendix B); None where one is unknown."""
        if self.flops_per_sample is None or not peak_flops:
            return None
        return samples_per_second * self.flops_per_sample / peak_flops


def work_of(models: Iterable[torch.nn.Module], tokens_per_sample: int | None, flops_per_sample: float | None) -> Work:
    """What a sample costs; for tokens it is estimated as 6 operations per parameter (Kaplan et al. 2020).

    Args:
        models: All models that are trained.
        tokens_per_sample: None counts speed in samples, whose cost is not known.
        flops_per_sample: As the user gives it; it replaces the estimate.
    """
    if tokens_per_sample is None:
        return Work("samples", 1, flops_per_sample)
    parameters = sum(parameter.numel() for model in models for parameter in model.parameters())
    return Work("tokens", tokens_per_sample, flops_per_sample or 6.0 * parameters * tokens_per_sample)


def peak_flops(device: torch.device) -> float | None:
    """Dense 16-bit operations per second of a device, whatever the run's precision; None outside of the table."""
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def peak_of(name: str) -> float | None:
    """Operations per second of the GPU of this name."""
    words = name.upper()
    return next((1e12 * teraflops for part, teraflops in PEAK_TERAFLOPS if part in words), None)


def memory_gb(device: torch.device) -> dict[str, float]:
    """Memory in use by this rank, in units of 10^9 bytes.

    Returns:
        `host_memory_gb`: resident, data loader workers included; pages they share are counted for each.
        `device_memory_gb`: the most that torch has held on the device so far.
    """
    pids = [None, *(child.pid for child in multiprocessing.active_children())]
    values = {"host_memory_gb": sum(map(_resident_bytes, pids)) / GIGABYTE}
    if device.type == "cuda":
        values["device_memory_gb"] = torch.cuda.max_memory_reserved(device) / GIGABYTE
    elif device.type == "mps":
        values["device_memory_gb"] = torch.mps.driver_allocated_memory() / GIGABYTE
    return values


def _resident_bytes(pid: int | None) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:  # it ended just now
        return 0
