"""Who is right at the edge? The same cases through hpc, Accelerate and Fabric, on two ranks; prints a table.

    python -m tests.benchmarks.edges [DIRECTORY]

The peers are installed into a virtual environment in DIRECTORY, or in one that is removed at the end. What is right is
computed with torch alone, or follows from the question; refusing with a sentence is never wrong.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.edge_cases import CASES, LEARNING_RATE, TwoLayers, error, layer, weights
from tests.benchmarks.peer_environment import install_peers, run_with_peers

REFUSALS = ("ConfigurationError", "DivergedError", "TypeError", "ValueError")
"""Classes by which a tool says what it does not take; anything else came from deeper down."""
WRONG = "**silently wrong**"
SHOWN = 70
TOLERANCE = 1e-4
DOCUMENTED = {
    ("a scheduler built on the prepared optimizer, 4 steps", "Accelerate"): "it advances once for each process",
    ("9 samples in batches of 2: metrics see each once", "Fabric"): "torch's DistributedSampler repeats a sample",
    ("drop_last with 11 samples", "Fabric"): "torch's DistributedSampler repeats a sample",
    ("3 micro-batches, accumulated by 2", "Fabric"): "the division is the user's own line",
    ("gather 2 and 3 rows", "Accelerate"): "wants pad_across_processes before",
}
"""Where a tool's documentation says that it does otherwise, or leaves it to the user."""


def alone(model: Any, optimizer: torch.optim.Optimizer, each: Callable[[int], Any] = lambda _: None) -> list[float]:
    """Four steps over global batches of four, with torch alone."""
    for number, x in enumerate(torch.arange(16.0).reshape(4, 4, 1)):
        each(number)

        def again(x: torch.Tensor = x) -> Any:
            optimizer.zero_grad()
            loss = error(model, x)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(again)
    return weights(model)


def unfrozen() -> list[float]:
    torch.manual_seed(5)
    model = TwoLayers()
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE)
    return alone(model, optimizer, lambda number: model.first.requires_grad_(number >= 2))


def with_closure() -> list[float]:
    model = layer()
    return alone(model, torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3))


def two_steps() -> list[float]:
    model = layer()
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE)
    for _ in range(2):
        optimizer.zero_grad()
        error(model, torch.ones(1, 1)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return weights(model)


WORDS = ["rank 0", "rank 1"]
TRUTH: dict[str, Callable[[], Any]] = {
    "gather a float": lambda: [0.5, 1.5],
    "gather a string": lambda: WORDS,
    "gather a dict of a tensor and a string": lambda: {"loss": [0.5, 1.5], "name": WORDS},
    "gather 2 and 3 rows": lambda: [0.0, 0.0, 1.0, 1.0, 1.0],
    "gather float32 and float64": lambda: [1.0] * 4,
    "9 samples in batches of 2: metrics see each once": lambda: [float(each) for each in range(9)],
    "drop_last with 11 samples": lambda: [[2, 2], 2],
    "a plain epoch loop shuffles anew": lambda: True,
    "the loss is NaN on one rank, once": lambda: "to refuse",
    "a layer is unfrozen in the third step": unfrozen,
    "a NumPy learning rate is saved and loaded": lambda: 0.25,
    "extra state of a module is saved and loaded": lambda: 3,
    "stopped and resumed in the middle of a shuffled epoch": lambda: [32, 32],
    "a scheduler built on the prepared optimizer, 4 steps": lambda: LEARNING_RATE * 0.5**4,
    "LBFGS with a closure": with_closure,
    "data sets of 16 and 24 samples on the ranks": lambda: "to refuse",
    "3 micro-batches, accumulated by 2": two_steps,
    "the norm that clipping returns": lambda: 17**0.5,
    "the newest checkpoint was cut on the disk": lambda: 1,
}


def main() -> None:
    """Ask everybody, and print the table."""
    directory = sys.argv[1] if len(sys.argv) > 1 else ""
    with tempfile.TemporaryDirectory(prefix="hpc") as temporary:
        peers = install_peers(Path(directory or temporary) / "peers")
        pythons = {"hpc": Path(sys.executable), "Accelerate": peers, "Fabric": peers}
        module = ("-m", "tests.benchmarks.edge_cases")
        found = {tool: json.loads(run_with_peers(python, *module, tool)) for tool, python in pythons.items()}
        names = "torch, accelerate, lightning_fabric"
        versions = f"import {names}\nprint(*(each.__version__ for each in ({names})))"
        torch_version, accelerate, fabric = run_with_peers(peers, "-c", versions).split()
    print(f"torch {torch_version}, accelerate {accelerate}, lightning-fabric {fabric}; two ranks over gloo.\n")
    print(render(found))


def render(found: dict[str, dict[str, Any]]) -> str:
    """A table in Markdown, and how often each was what."""
    lines = ["| case | what is right | " + " | ".join(found) + " |", "|---" * (2 + len(found)) + "|"]
    counts: dict[str, dict[str, int]] = {tool: {} for tool in found}
    for case in CASES:
        truth, cells = TRUTH[case](), []
        for tool, answers in found.items():
            kind, words = judge(truth, answers[case])
            note = DOCUMENTED.get((case, tool), "") if kind != "right" else ""
            if note and kind == WRONG:
                kind = "differs, as documented"
            counts[tool][kind] = counts[tool].get(kind, 0) + 1
            cells.append(f"{kind}{f': {words}' if words else ''}{f' ({note})' if note else ''}")
        lines.append(f"| {case} | {shown(truth)} | {' | '.join(cells)} |")
    totals = [", ".join(f"{count} {kind}" for kind, count in sorted(each.items())) for each in counts.values()]
    return "\n".join([*lines, f"| together | | {' | '.join(totals)} |"])


def judge(truth: Any, answers: list[Any]) -> tuple[str, str]:
    """What the two ranks' answers amount to, and a few words about it."""
    kinds = {answer[0] for answer in answers}
    if "hangs" in kinds:
        return "**hangs**", ""
    if "died" in kinds:
        return "**aborts**", ""
    errors = [answer for answer in answers if answer[0] == "error"]
    if errors:
        refused = len(errors) == len(answers) and all(each[1] in REFUSALS for each in errors)
        return "refuses" if refused else "**crashes**", f"{errors[0][1]}: {shown(errors[0][2])}"
    first, second = (answer[1] for answer in answers)
    if equal(first, truth) and equal(second, truth):
        return "right", ""
    return WRONG, shown(first) if equal(first, second) else f"{shown(first)} and {shown(second)}"


def equal(one: Any, other: Any) -> bool:
    """Whether two answers are the same, up to rounding."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return abs(one - other) <= TOLERANCE
    return bool(one == other)


def shown(value: Any) -> str:
    """Fits into a cell."""
    text = " ".join(str(_rounded(value)).split()).replace("|", "/").replace("\x1b[1m", "")
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
