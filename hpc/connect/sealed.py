"""How does a rank know that a word came from a rank of its own world? It carries a proof that only these can make.

A proof is an HMAC (SHA-256) over what the word is about and the word itself. Everybody on the network may read a word,
and may hold one back; nobody else can make one, change it, or say it again in another place or another life.
"""

from __future__ import annotations

import hmac
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import distributed

from hpc.errors import WorldError

PROOF_BYTES = 32
INTERFERENCE = "another program on this machine or network interferes (see docs/security.md)"


def prove(key: bytes, *parts: bytes) -> bytes:
    """The proof of these parts, 32 bytes; where one part ends and the next begins counts."""
    return hmac.digest(key, b"".join(len(part).to_bytes(8, "big") + part for part in parts), "sha256")


@dataclass(frozen=True)
class SealedStore:
    """torch's store, in which only words of those who have the key are believed. Values are what JSON has.

    Args:
        plain: For torch itself, whose own words in it are not sealed.
        key: Of all proofs.
        advice: The end of the sentence about a wrong proof.
    """

    plain: distributed.Store
    key: bytes = field(repr=False)
    advice: str = INTERFERENCE

    def set(self, name: str, value: Any) -> None:
        """Write a value, over what may be there."""
        self.plain.set(name, self._seal(name, value))

    def set_all(self, values: Mapping[str, Any]) -> None:
        """Write several values in one exchange."""
        sealed = [self._seal(name, value) for name, value in values.items()]
        self.plain.multi_set([*values], sealed)  # type: ignore[attr-defined] # torch's stubs lack it

    def get(self, name: str) -> Any:
        """Wait for a value.

        Raises:
            WorldError: Somebody without the key has written it.
        """
        return self._open(name, self.plain.get(name))

    def get_all(self, names: Sequence[str]) -> list[Any]:
        """Wait for several values in one exchange; errors as of `get`."""
        return list(map(self._open, names, self.plain.multi_get([*names])))

    def propose(self, name: str, value: Any) -> Any:
        """Write a value unless there is one; returns what is there then. Errors as of `get`."""
        return self._open(name, self.plain.compare_set(name, "", self._seal(name, value)))

    def has(self, *names: str) -> bool:
        """Whether all of them were written, by whomever."""
        return bool(self.plain.check([*names]))

    def count(self, name: str, amount: int) -> int:
        """Add to a number; returns what it is then. A hint when to look: anybody on the network can count along."""
        return int(self.plain.add(name, amount))

    def _seal(self, name: str, value: Any) -> str:
        body = json.dumps(value)
        return prove(self.key, b"store", name.encode(), body.encode()).hex() + body

    def _open(self, name: str, sealed: bytes) -> Any:
        proof, body = sealed[: 2 * PROOF_BYTES], sealed[2 * PROOF_BYTES :]
        if not hmac.compare_digest(proof, prove(self.key, b"store", name.encode(), body).hex().encode()):
            raise WorldError(f"{name} in the ranks' store must be written by one of them, but is not: {self.advice}.")
        return json.loads(body)


class SealedWords:
    """Python values between the ranks of a gloo group. A pickle is opened only after its sender has proved itself.

    Args:
        group: All ranks; used in the same order on each.
        key: Of all proofs.
        name: Tells this group from the others of the same ranks.
    """

    def __init__(self, group: distributed.ProcessGroup, key: bytes, name: str) -> None:
        self.group = group
        self._key, self._name, self._turn = key, name, 0
        self._rank, self._size = group.rank(), group.size()

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank. Collective."""
        own = self._sealed(value if self._rank == 0 else None)
        size = torch.tensor([own.numel()])
        distributed.broadcast(size, src=0, group=self.group)
        word = own if self._rank == 0 else own.new_empty(int(size))
        distributed.broadcast(word, src=0, group=self.group)
        return value if self._rank == 0 else self._opened(word, 0)

    def all_gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every rank. Collective."""
        own, sizes = self._padded(self._sealed(value))
        words = list(own.new_empty(self._size, own.numel()))
        distributed.all_gather(words, own, group=self.group)
        return self._all_opened(words, sizes)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on rank 0; elsewhere an empty list. Collective."""
        own, sizes = self._padded(self._sealed(value))
        words = list(own.new_empty(self._size, own.numel())) if self._rank == 0 else []
        distributed.gather(own, words or None, dst=0, group=self.group)
        return self._all_opened(words, sizes)

    def _padded(self, own: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """The word, as long as the longest of all ranks, and how long each rank's is."""
        sizes = torch.empty(self._size, 1, dtype=torch.int64)
        distributed.all_gather(list(sizes), torch.tensor([own.numel()]), group=self.group)
        return torch.cat([own, own.new_zeros(int(sizes.max()) - own.numel())]), sizes.flatten().tolist()

    def _sealed(self, value: Any) -> torch.Tensor:
        """The turn counts what this group has exchanged, so that a word of another turn has another proof."""
        self._turn += 1
        body = pickle.dumps(value)
        return torch.frombuffer(bytearray(self._proof(self._rank, body) + body), dtype=torch.uint8)

    def _all_opened(self, words: Sequence[torch.Tensor], sizes: Sequence[int]) -> list[Any]:
        return [self._opened(word[:size], rank) for rank, (word, size) in enumerate(zip(words, sizes, strict=False))]

    def _opened(self, word: torch.Tensor, sender: int) -> Any:
        sealed = word.numpy().tobytes()
        proof, body = sealed[:PROOF_BYTES], sealed[PROOF_BYTES:]
        if not hmac.compare_digest(proof, self._proof(sender, body)):
            raise WorldError(f"Rank {self._rank} must hear from rank {sender}, but hears a stranger: {INTERFERENCE}.")
        return pickle.loads(body)

    def _proof(self, sender: int, body: bytes) -> bytes:
        return prove(self._key, b"word", json.dumps([self._name, self._turn, sender]).encode(), body)
