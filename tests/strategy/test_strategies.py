"""One training function under every strategy: the same numbers.

A few launches compute everything; the tests look at what they left behind.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, runner
from tests.programs.strategy_models import IN_HALF, SCALED, TORCH, ZERO

Results = dict[str, Any]

FLOAT_TOLERANCE = 1e-5
"""Relative. Strategies add the same fp32 numbers in another order: 1e-7 in a step (measured: at most 5e-7 in six),
and AdamW's division by the root of a small second moment may make an order of magnitude more of it."""

pytestmark = pytest.mark.gloo


def launch(directory: Path, target: str, ranks: int) -> Results:
    done = runner(directory, str(ROOT / "run.py"))(
        "-m", "hardware=cpu", "cluster=local", f"hardware.tasks_per_node={ranks}", "run_dir=out",
        f"experiment.target=tests.programs.{target}", timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results: Results = json.loads((directory / "out" / "results.json").read_text())
    return results


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return launch(tmp_path_factory.mktemp("alone"), "strategy_jobs.alone", ranks=1)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return launch(tmp_path_factory.mktemp("together"), "strategy_jobs.torch_strategies", ranks=2)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return launch(tmp_path_factory.mktemp("engines"), "strategy_jobs.zero_stages", ranks=2)


@pytest.fixture(scope="module")
def users_code(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return launch(tmp_path_factory.mktemp("users_code"), "users_code.train", ranks=2)


@pytest.mark.parametrize("accumulated", ["", ", accumulated"])
@pytest.mark.parametrize("name", [*TORCH, *ZERO])
def test_two_ranks_take_the_steps_of_one_process(
    alone: Results, request: pytest.FixtureRequest, name: str, accumulated: str
) -> None:
    """Losses and norms of two ranks, also with two micro-batches each, are those of one process with whole batches."""
    results = request.getfixturevalue("engines" if name in ZERO else "together")["stack"][name + accumulated]
    assert results["loss"] == pytest.approx(alone["stack"]["loss"], rel=FLOAT_TOLERANCE)
    assert results["norm"] == pytest.approx(alone["stack"]["norm"], rel=FLOAT_TOLERANCE)


@pytest.mark.parametrize("name", [*TORCH, *ZERO])
def test_a_prepared_model_keeps_the_names_of_its_state(
    alone: Results, request: pytest.FixtureRequest, name: str
) -> None:
    results = request.getfixturevalue("engines" if name in ZERO else "together")["stack"][name]
    assert results["names"] == alone["stack"]["names"]


def test_an_engine_may_be_alone(alone: Results) -> None:
    assert alone["engine"]["loss"] == pytest.approx(alone["stack"]["loss"], rel=FLOAT_TOLERANCE)


def test_an_engine_takes_fp16_or_says_what_this_device_takes(engines: Results) -> None:
    words = r"one that DeepSpeed supports on this cpu \(float32, bfloat16\), but is fp16"
    assert engines["scaled"] == "accepted" or re.search(words, engines["scaled"])


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero 2"])
def test_tokens_weigh_the_same_on_every_rank_and_in_every_micro_batch(
    alone: Results, request: pytest.FixtureRequest, name: str
) -> None:
    """Two ranks with two micro-batches each, of unequal numbers of tokens, against one mean over all tokens."""
    results = request.getfixturevalue("engines" if name in ZERO else "together")
    assert results["sentences"][name] == pytest.approx(alone["sentences"], rel=FLOAT_TOLERANCE)


@pytest.mark.parametrize("name", IN_HALF)
def test_sixteen_bits_take_nearly_the_same_steps(alone: Results, request: pytest.FixtureRequest, name: str) -> None:
    """Nearly: bf16 has 8 bits of precision, so that a loss is off by a percent or so after a few steps."""
    results = request.getfixturevalue("engines" if name in ZERO else "together")["half"][name]
    assert results["loss"] == pytest.approx(alone["stack"]["loss"], rel=0.05)


@pytest.mark.parametrize("name", SCALED)
def test_an_overflow_on_one_rank_skips_the_step_of_every_rank(together: Results, name: str) -> None:
    first, second = together["overflow"][name]
    assert first == [[True, 1.0, 2.0**15]] * 2
    assert second == [[False, 0.5, 2.0**15]] * 2


@pytest.mark.parametrize("first", ["ddp", "fsdp in two copies"])
@pytest.mark.parametrize("second", ["ddp", "fsdp by size, offloaded"])
def test_a_run_goes_on_under_another_strategy(together: Results, first: str, second: str) -> None:
    """The same weights, moments, learning rate and samples, so that the same steps follow."""
    found, whole = together["resumed"][f"{first}, then {second}"], together["stack"][second]
    assert len(found["loss"]) == 3
    if first == second:
        assert (found["loss"], found["norm"]) == (whole["loss"][3:], whole["norm"][3:])
    assert found["loss"] == pytest.approx(whole["loss"][3:], rel=FLOAT_TOLERANCE)
    assert found["norm"] == pytest.approx(whole["norm"][3:], rel=FLOAT_TOLERANCE)


@pytest.mark.parametrize("name", ["zero 2", "zero 3, recomputed"])
def test_an_engine_goes_on_from_its_own_files(engines: Results, name: str) -> None:
    found, whole = engines["resumed"][name], engines["stack"][name]
    assert (found["loss"], found["norm"]) == (whole["loss"][3:], whole["norm"][3:])


def test_two_copies_of_two_shards_are_four_whole_models(tmp_path: Path) -> None:
    results = launch(tmp_path, "strategy_jobs.two_by_two", ranks=4)
    for curve in ("loss", "norm"):
        assert results["hybrid"][curve] == pytest.approx(results["ddp"][curve], rel=FLOAT_TOLERANCE)
    assert results["overflow"] == [[[True, 1.0, 2.0**15]] * 4, [[False, 0.5, 2.0**15]] * 4]


def test_sharded_and_whole_parameters_are_clipped_by_one_norm(together: Results) -> None:
    mixture = together["mixture"]
    assert mixture["found"] == pytest.approx([mixture["norm"]] * 2, rel=1e-6)
    assert mixture["after"] == pytest.approx(1.0, rel=1e-5)


def test_a_module_is_seen_through_what_wraps_it(together: Results) -> None:
    around = together["around"]
    assert (around["same"], around["scale"], around["other"]) == (True, 2, False)
    assert around["spread"] == [1.0, 1.0, 1.0]
    assert "but kept is of layout torch.sparse_coo" in around["sparse"]
    assert "but last.weight, last.bias came later: build all layers before prepare" in around["said"]


def test_recomputed_blocks_are_computed_twice(together: Results) -> None:
    assert together["recomputed"] == 6


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("unknown block", r"must name classes of modules in Stack \(LayerNorm, Linear, .*\), but names Attention"),
        ("scalar", "temperature is a scalar: give it shape"),
        ("stepped", "must get the AdamW before its first step"),
        ("stranger", r"one of shape \[32, 16\] belongs to no prepared model"),
        ("twice", "first.weight is sharded already"),
    ],
)
def test_what_fsdp_cannot_shard_is_named(together: Results, what: str, words: str) -> None:
    assert re.search(words, together["refusals"][what])


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no optimizer", "must get one model to train and its optimizer, in one call of prepare, but got 1 and 0"),
        ("second", "but got 1 and 1 more"),
        ("some parameters", "clips all parameters of the model it trains"),
    ],
)
def test_what_an_engine_cannot_take_is_named(engines: Results, what: str, words: str) -> None:
    assert re.search(words, engines["refusals"][what])


@pytest.mark.parametrize("name", ["fsdp", "fsdp by size"])
def test_a_gpt2_of_transformers_learns_alike_under_ddp_and_fsdp(users_code: Results, name: str) -> None:
    found, expected = users_code["gpt2"][name]["losses"], users_code["gpt2"]["ddp"]["losses"]
    assert found == pytest.approx(expected, rel=FLOAT_TOLERANCE)
    assert found[-1] < found[0]


def test_tied_weights_stay_tied(users_code: Results) -> None:
    assert [each["tied"] for each in users_code["gpt2"].values()] == [True, True, True]


def test_a_residual_network_recognises_digits_under_ddp_and_fsdp(users_code: Results) -> None:
    ddp, fsdp = users_code["digits"]["ddp"], users_code["digits"]["fsdp"]
    assert fsdp["losses"][:5] == pytest.approx(ddp["losses"][:5], rel=FLOAT_TOLERANCE)
    assert min(ddp["recognised"], fsdp["recognised"]) > 0.6  # of ten digits
