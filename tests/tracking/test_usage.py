"""Memory, arithmetic, batch sizes that fit, and steps under the profiler."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from hpc import Runtime, find_executable_batch_size
from hpc.config import Profile
from hpc.errors import ConfigurationError
from hpc.tracking.profiler import NEVER, ProfilerWindow
from hpc.tracking.usage import memory_gb, peak_flops, peak_of, work_of
from tests.programs.jobs import Points

CPU = torch.device("cpu")


def test_host_memory_grows_with_what_is_held() -> None:
    before = memory_gb(CPU)["host_memory_gb"]
    held = torch.ones(50_000_000)  # 200 MB
    assert 0.1 < memory_gb(CPU)["host_memory_gb"] - before < 0.4
    assert held[0] == 1


def test_host_memory_includes_data_loader_workers() -> None:
    before = memory_gb(CPU)["host_memory_gb"]
    batches = iter(DataLoader(Points(), 4, num_workers=2))
    next(batches)
    assert memory_gb(CPU)["host_memory_gb"] > 1.5 * before


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H200", 989.4),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA A10G", 125.0),
        ("Tesla V100-SXM2-32GB", 125.0),
    ],
)
def test_the_peak_of_a_gpu_is_known_by_its_name(name: str, teraflops: float) -> None:
    assert peak_of(name) == 1e12 * teraflops


def test_an_unknown_gpu_and_a_cpu_have_no_peak() -> None:
    assert peak_of("NVIDIA Something 1") is None
    assert peak_flops(CPU) is None


def test_utilization_is_six_operations_per_parameter_and_token() -> None:
    work = work_of([nn.Linear(10, 10, bias=False)], tokens_per_sample=50, flops_per_sample=None)
    assert work.flops_per_sample == 6 * 100 * 50
    assert work.utilization(samples_per_second=2.0, peak_flops=1e6) == pytest.approx(0.06)


@pytest.mark.parametrize(("given", "expected"), [(None, None), (1e3, 0.25)])
def test_of_samples_only_the_user_knows_the_cost(given: float | None, expected: float | None) -> None:
    work = work_of([nn.Linear(10, 10)], tokens_per_sample=None, flops_per_sample=given)
    assert work.unit == "samples"
    assert work.utilization(samples_per_second=5.0, peak_flops=2e4) == expected
    assert work.utilization(samples_per_second=5.0, peak_flops=None) is None


def test_a_batch_is_halved_until_it_fits() -> None:
    tried = []

    @find_executable_batch_size(starting_batch_size=24)
    def train(batch_size: int, factor: int) -> int:
        tried.append(batch_size)
        torch.empty(2**40 * factor if batch_size > 5 else 1)  # 4 TiB: the CPU's allocator refuses
        return batch_size

    assert train(1024) == 3
    assert tried == [24, 12, 6, 3]


def test_a_batch_of_one_that_does_not_fit_is_one_sentence() -> None:
    @find_executable_batch_size(starting_batch_size=4)
    def train(batch_size: int) -> None:
        raise torch.OutOfMemoryError(f"no room for {batch_size}")

    with pytest.raises(ConfigurationError, match="but from 4 down to 1 none does"):
        train()


def test_another_error_is_not_about_memory() -> None:
    @find_executable_batch_size()
    def train(batch_size: int) -> None:
        raise RuntimeError(f"shape of {batch_size}")

    with pytest.raises(RuntimeError, match="shape of 128"):
        train()


def run(directory: Path, **profile: Any) -> None:
    with Runtime({"run_dir": str(directory), "runtime": {"device": "cpu", "profile": profile}}) as runtime:
        model = nn.Linear(16, 4)
        model, loader = runtime.prepare(model, DataLoader(Points(), 4))
        for points, _ in runtime.steps(loader, total=5):
            model(points)


@pytest.mark.parametrize(("start_step", "taken"), [(1, 2), (3, 2), (5, 1)])
def test_the_profiler_sees_the_steps_it_was_asked_for(tmp_path: Path, start_step: int, taken: int) -> None:
    run(tmp_path, start_step=start_step, steps=2)
    with gzip.open(tmp_path / "profile" / "rank_0.json.gz") as file:
        events = json.load(file)["traceEvents"]
    assert sum(event.get("name") == "aten::linear" for event in events) == taken


def test_a_life_that_begins_behind_the_profiled_steps_never_looks_for_them(tmp_path: Path) -> None:
    window = ProfilerWindow(Profile(start_step=3), tmp_path, 0, torch.device("cpu"))
    window.after(7)
    assert window.next_step == NEVER > 10**9


def test_nothing_is_profiled_unless_asked(tmp_path: Path) -> None:
    run(tmp_path)
    assert not (tmp_path / "profile").exists()
