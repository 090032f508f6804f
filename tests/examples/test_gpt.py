from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from hpc.errors import ConfigurationError
from hpc.examples.gpt import GPT, GPTConfig, optimizer_groups, warmup_cosine

SMALL = GPTConfig(vocab_size=17, block_size=16, layers=2, heads=2, width=16)


def seeded_model(config: GPTConfig = SMALL) -> GPT:
    torch.manual_seed(0)
    return GPT(config)


def random_ids(*shape: int) -> torch.Tensor:
    return torch.randint(SMALL.vocab_size, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("length", [1, 7, 16])
def test_logits_have_one_row_per_position_and_no_loss_without_labels(length: int) -> None:
    output = seeded_model()(random_ids(3, length))
    assert output.logits.shape == (3, length, 17)
    assert output.loss is None


def test_the_loss_is_the_mean_cross_entropy_of_the_labels() -> None:
    ids, labels = random_ids(3, 16), random_ids(3, 16).flip(1)
    output = seeded_model()(input_ids=ids, labels=labels)
    expected = -output.logits.log_softmax(-1).gather(-1, labels[..., None]).mean()
    torch.testing.assert_close(output.loss, expected)


def test_an_untrained_model_is_about_as_good_as_guessing() -> None:
    ids = torch.randint(256, (8, 129), generator=torch.Generator().manual_seed(1))
    loss = seeded_model(GPTConfig())(ids[:, :-1], ids[:, 1:]).loss
    assert abs(loss.item() - math.log(256)) < 0.75


def test_a_later_id_changes_no_earlier_logits() -> None:
    model, ids = seeded_model(), random_ids(2, 16)
    changed = ids.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 17
    before, after = model(ids).logits, model(changed).logits
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.isclose(before[:, 9:], after[:, 9:]).all(-1).any()


def test_positions_matter() -> None:
    model, ids = seeded_model(), random_ids(1, 16)
    swapped = ids[:, [1, 0, *range(2, 16)]]
    assert not torch.allclose(model(ids).logits[:, -1], model(swapped).logits[:, -1], atol=1e-4)


def test_a_repeated_pattern_is_learned_in_a_few_steps() -> None:
    model = seeded_model()
    ids = torch.arange(17 * 8).remainder(17).unfold(0, 17, 8)[:8].contiguous()
    optimizer = torch.optim.AdamW(optimizer_groups(model, 0.1), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = model(ids[:, :-1], ids[:, 1:]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 2.0
    assert losses[-1] < 0.1


def test_generated_ids_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    model, prompt = seeded_model(), random_ids(2, 3)
    first, again, other = (
        model.generate(prompt, 30, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert first.shape == (2, 33)
    assert torch.equal(first[:, :3], prompt)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_generation_leaves_the_global_random_state_and_the_mode_alone() -> None:
    model = seeded_model(replace(SMALL, dropout=0.5))
    state = torch.get_rng_state()
    model.generate(random_ids(1, 3), 5, generator=torch.Generator().manual_seed(5))
    assert torch.equal(state, torch.get_rng_state())
    assert model.training


def test_a_low_temperature_takes_the_likeliest_id() -> None:
    model, prompt = seeded_model(), random_ids(1, 3)
    ids = model.generate(prompt, 1, temperature=1e-4)
    assert ids[0, -1] == model(prompt).logits[0, -1].argmax()


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigurationError, match=f"temperature must be greater than 0, but is {temperature}:"):
        seeded_model().generate(random_ids(1, 3), 1, temperature=temperature)


def test_dropout_acts_in_training_only() -> None:
    model, ids = seeded_model(replace(SMALL, dropout=0.5)), random_ids(1, 16)
    assert not torch.equal(model(ids).logits, model(ids).logits)
    model.eval()
    assert torch.equal(model(ids).logits, model(ids).logits)


@pytest.mark.parametrize(("width", "heads"), [(96, 5), (12, 4), (96, 0)])
def test_a_width_that_heads_do_not_cut_evenly_is_refused(width: int, heads: int) -> None:
    message = rf"twice as many must divide model\.width .*, but they are {heads} and {width}: change"
    with pytest.raises(ConfigurationError, match=message):
        GPTConfig(width=width, heads=heads)


def test_matrices_decay_and_vectors_do_not() -> None:
    model = seeded_model()
    decayed, spared = optimizer_groups(model, 0.1)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert {parameter.dim() for parameter in decayed["params"]} == {2}
    assert {parameter.dim() for parameter in spared["params"]} == {1}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


def test_frozen_parameters_are_left_to_nobody() -> None:
    model = seeded_model()
    model.embedding.requires_grad_(False)
    grouped = {id(parameter) for group in optimizer_groups(model, 0.1) for parameter in group["params"]}
    assert id(model.embedding.weight) not in grouped


def test_the_learning_rate_rises_in_a_line_and_falls_to_a_twentieth() -> None:
    factor = warmup_cosine(4, 12)
    assert [factor(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factor(8) == pytest.approx((1 + 0.05) / 2)
    falling = [factor(step) for step in range(4, 13)]
    assert falling == sorted(falling, reverse=True)
    assert [factor(step) for step in (12, 13, 1000)] == [0.05, 0.05, 0.05]


@pytest.mark.parametrize(("warmup_steps", "total_steps"), [(0, 10), (10, 10), (20, 10)])
def test_a_schedule_without_warm_up_or_without_descent_stays_in_range(warmup_steps: int, total_steps: int) -> None:
    factor = warmup_cosine(warmup_steps, total_steps)
    assert all(0 < factor(step) <= 1 for step in range(30))


def test_blocks_are_named_so_that_a_strategy_can_wrap_them() -> None:
    assert sum(type(module).__name__ == "Block" for module in seeded_model().modules()) == SMALL.layers


def test_only_parameters_are_saved() -> None:
    model = seeded_model()
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
