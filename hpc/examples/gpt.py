"""What is the example model? A decoder-only transformer over bytes, small enough for a laptop.

Pre-norm blocks (Xiong et al. 2020, arXiv:2002.04745), contributions scaled by depth (GPT-2, Radford et al. 2019),
rotary positions (Su et al. 2021, arXiv:2104.09864), squared ReLU (So et al. 2021, arXiv:2109.08668).
Called like a transformers model: `model(**batch).loss`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

FINAL_FACTOR = 0.05
"""Where the cosine ends, as a part of the highest learning rate."""


@dataclass(frozen=True)
class GPTConfig:
    """Shape of the model.

    Args:
        vocab_size: Number of distinct ids; 256 for bytes.
        block_size: Longest sequence, in ids.
        layers: Number of blocks.
        heads: Attention heads per block.
        width: Features per position.
        dropout: Probability of dropping a feature of the embedding or of a block's contribution, while training.

    Raises:
        ConfigurationError: `heads` does not cut `width` into heads of even size.
    """

    vocab_size: int = 256
    block_size: int = 128
    layers: int = 2
    heads: int = 4
    width: int = 96
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % (2 * self.heads):
            raise ConfigurationError(
                "model.heads must be at least 1, and twice as many must divide model.width (rotary positions turn "
                f"pairs of features), but they are {self.heads} and {self.width}: change one of them."
            )


class GPTOutput(NamedTuple):
    """What a forward pass returns: a tuple, because DDP and FSDP look for tensors inside tuples.

    Args:
        loss: Mean cross-entropy in nats per id, or None when there were no labels.
        logits: [B, T, vocab_size].
    """

    loss: Tensor | None
    logits: Tensor


class GPT(nn.Module):
    """A language model: ids in, the next id's logits out.

    Args:
        config: The shape.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        _initialise(self)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> GPTOutput:
        """Predict the id after every position.

        Args:
            input_ids: int64 [B, T], T at most `block_size`.
            labels: int64 [B, T], the ids to be predicted; already shifted, unlike those of transformers.
        """
        features = self.dropout(self.embedding(input_ids))
        for block in self.blocks:
            features = block(features)
        logits = self.head(self.norm(features))
        if labels is None:
            return GPTOutput(None, logits)
        # In float32 whatever the strategy: FSDP's mixed precision has no autocast that would see to it.
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        return GPTOutput(loss, logits)

    @torch.no_grad()
    def generate(
        self, prompt: Tensor, length: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Sample ids that follow a prompt; reproducible with a seeded generator.

        Args:
            prompt: int64 [B, T], T at least 1; the last `block_size` ids are looked at.
            length: How many ids to add.
            temperature: Divides the logits; near 0 the likeliest id wins, at 1 ids are as frequent as predicted.
            generator: Source of randomness, on the model's device; torch's own when None.

        Returns:
            int64 [B, T + length].

        Raises:
            ConfigurationError: The temperature is not positive.
        """
        if temperature <= 0:
            raise ConfigurationError(
                f"temperature must be greater than 0, but is {temperature}: near 0 the likeliest id is taken."
            )
        was_training = self.training
        self.eval()
        ids = prompt
        for _ in range(length):
            logits = self(ids[:, -self.config.block_size :]).logits[:, -1] / temperature
            ids = torch.cat((ids, torch.multinomial(logits.softmax(-1), 1, generator=generator)), 1)
        self.train(was_training)
        return ids


class Block(nn.Module):
    """Attention, then a two-layer perceptron, each added to what came in; the unit that FSDP shards.

    Args:
        config: The shape.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, bias=False)
        self.attention = Attention(config)
        self.perceptron_norm = nn.LayerNorm(config.width, bias=False)
        self.expand = nn.Linear(config.width, 4 * config.width, bias=False)
        self.contract = nn.Linear(4 * config.width, config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the shape that came in, [B, T, width]."""
        features = features + self.dropout(self.attention(self.attention_norm(features)))
        hidden = functional.relu(self.expand(self.perceptron_norm(features))).square()
        output: Tensor = features + self.dropout(self.contract(hidden))
        return output


class Attention(nn.Module):
    """Causal self-attention with rotary positions.

    Args:
        config: The shape.
    """

    turns: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.queries_keys_values = nn.Linear(config.width, 3 * config.width, bias=False)
        self.contract = nn.Linear(config.width, config.width, bias=False)
        # A function of the configuration, so it stays out of checkpoints.
        self.register_buffer("turns", _turns(config), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Mix [B, T, width] along T, looking back only."""
        heads = self.queries_keys_values(features).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            _turned(queries, self.turns), _turned(keys, self.turns), values, is_causal=True
        )
        output: Tensor = self.contract(mixed.transpose(1, 2).flatten(2))
        return output


def _turns(config: GPTConfig) -> Tensor:
    """Return the cosines and sines of the angles by which position t turns feature pair k: [2, T, pairs]."""
    pairs = config.width // config.heads // 2
    frequencies = 10000.0 ** (-torch.arange(pairs) / pairs)
    angles = torch.outer(torch.arange(config.block_size), frequencies)
    return torch.stack((angles.cos(), angles.sin()))


def _turned(heads: Tensor, turns: Tensor) -> Tensor:
    """Rotate [B, heads, T, size] so that a product of two depends on their distance, not on their places."""
    cosines, sines = turns[:, : heads.shape[-2]].to(heads.dtype)
    first, second = heads.chunk(2, -1)
    return torch.cat((first * cosines - second * sines, first * sines + second * cosines), -1)


def _initialise(model: GPT) -> None:
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            continue
        deviation = weight.shape[-1] ** -0.5
        # Two contributions per block are added up: smaller ones keep the sum's size independent of depth (GPT-2).
        scale = 1 / math.sqrt(2 * model.config.layers) if name.endswith("contract.weight") else 1.0
        nn.init.normal_(weight, std=deviation * scale)


def optimizer_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups in which matrices decay, and biases and norms (fewer than two dimensions) do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def warmup_cosine(warmup_steps: int, total_steps: int) -> Callable[[int], float]:
    """Return a factor for `LambdaLR`: up in a line over `warmup_steps`, then down half a cosine to a twentieth.

    The first step already learns (factor 1 / warmup_steps), and steps past `total_steps` stay at the end.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        half_cosine = (1 + math.cos(math.pi * done)) / 2
        return FINAL_FACTOR + (1 - FINAL_FACTOR) * half_cosine

    return factor
