"""What is there to deal out to the ranks, and is it the same on all of them?"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any, Literal

from torch.utils.data import BatchSampler, DataLoader

from hpc.connect.process_group import ProcessGroup
from hpc.data.order import SampleOrder
from hpc.data.samplers import Listed, digest_of, length_of, order_of
from hpc.errors import ConfigurationError


@dataclass(frozen=True)
class Deal:
    """What a loader over a map-style data set deals out.

    Args:
        order: Of the samples; where the user's code makes whole batches, each of these counts as one sample.
        seed: Of the order, and of draws in workers.
        batch_size: Samples per rank and micro-batch.
        drop_last: Whether a pass leaves out what does not fill a micro-batch on every rank.
        unit: What is dealt out: samples; batches, each a list of indices in the order; or items, each of which is a
            batch that the data set gives.
    """

    order: SampleOrder
    seed: int
    batch_size: int
    drop_last: bool
    unit: Literal["samples", "batches", "items"] = "samples"


def deal_of(loader: DataLoader[Any], seed: int, group: ProcessGroup) -> Deal:
    """What a loader deals out. Collective.

    Args:
        loader: The user's, over a map-style data set.
        seed: Of the order, where the loader has no generator of its own.
        group: All ranks.

    Raises:
        ConfigurationError: It cannot be dealt out, or is not the same on all ranks; on every rank.
    """
    deal, refusal = None, None
    try:
        deal = _deal_of(loader, seed, group)
    except ConfigurationError as error:
        refusal = error
    everybodys = group.all_gather(str(refusal) if deal is None else _facts(deal))
    if refusal is not None or deal is None:
        raise refusal or AssertionError
    for rank, facts in enumerate(everybodys):
        if isinstance(facts, str):
            raise ConfigurationError(f"On rank {rank}: {facts}")
        for name, value in facts.items():
            if value != everybodys[0][name]:
                raise ConfigurationError(
                    f"A loader must be the same on all ranks, because prepare deals its samples out to them, but its "
                    f"{name} is {everybodys[0][name]} on rank 0 and {value} on rank {rank}: give every rank the whole "
                    "data set and the same options."
                )
    return deal


def check_resumed(deal: Deal, position: dict[str, Any] | None) -> None:
    """Compare with what `position_of` noted when the checkpoint was made.

    Raises:
        ConfigurationError: The data set or the order is another, so that positions mean other samples.
    """
    for name, value in position_of(deal).items():
        before = (position or {}).get(name, value)
        if before != value:
            raise ConfigurationError(
                f"A resumed run must find its data as it was, because it goes on at a position in it, but the {name} "
                f"was {before} and is {value}: bring back what there was, or begin a new run in another run_dir."
            )


def check_length(deal: Deal, loader: DataLoader[Any]) -> None:
    """A data set must stay as long as it was when it was dealt out.

    Raises:
        ConfigurationError: It is longer or shorter now.
    """
    now = length_of(_dealt(loader))
    if now != deal.order.length:
        raise ConfigurationError(
            "A data set must stay as long as it was when prepare dealt its samples out, because a position in it is "
            f"what a resumed run goes on from, but it had {deal.order.length} and has {now}: prepare another loader "
            "for what has come, or let an IterableDataset give it."
        )


def _dealt(loader: DataLoader[Any]) -> Any:
    """What gives the entries that are dealt out: the loader's sampler, or the user's own batch sampler."""
    batches = loader.batch_sampler
    return loader.sampler if batches is None else batches.sampler if type(batches) is BatchSampler else batches


def position_of(deal: Deal) -> dict[str, Any]:
    """What must be the same when the run is resumed."""
    return {"number of samples": deal.order.length, "seed of the order": deal.seed}


def _deal_of(loader: DataLoader[Any], seed: int, group: ProcessGroup) -> Deal:
    check_reading(loader)
    _check_order(loader)
    seed = seed if loader.generator is None else loader.generator.initial_seed()
    batches, order = loader.batch_sampler, order_of(_dealt(loader), seed, group)
    if type(batches) is BatchSampler:  # the loader's own, or the user's of the same kind
        deal = Deal(order, seed, batches.batch_size, batches.drop_last)
    else:
        deal = Deal(order, seed, 1, False, "items" if batches is None else "batches")
    if not deal.order.length:
        raise ConfigurationError(
            "The loader must be a DataLoader(dataset, batch_size=..., shuffle=...) over a data set with samples, "
            "because prepare deals them out to the ranks, but it has an empty data set or sampler."
        )
    return deal


def _check_order(loader: DataLoader[Any]) -> None:
    if loader.num_workers and not getattr(loader, "in_order", True):
        raise ConfigurationError(
            "The loader must have in_order=True, so that a resumed run goes on with the very next batch, but has "
            "in_order=False: leave it away."
        )


def check_reading(loader: DataLoader[Any]) -> None:
    """A loader is read by its options, not by an `__iter__` that the user's own class may have.

    Raises:
        ConfigurationError: It has one.
    """
    if type(loader).__iter__ is not DataLoader.__iter__ and not _is_torchdatas(type(loader).__iter__):
        raise ConfigurationError(
            "The loader must be read as torch's DataLoader is, because prepare reads its data set itself, but "
            f"{type(loader).__name__} has an __iter__ of its own: do what it does in collate_fn, or in the loop."
        )


def _is_torchdatas(function: Any) -> bool:
    return getattr(function, "__module__", "").startswith("torchdata.")


def _facts(deal: Deal) -> dict[str, Any]:
    order = deal.order.digest if isinstance(deal.order, Listed) else pickle.dumps(deal.order)
    return {
        "number of samples": deal.order.length,
        "batch_size": deal.batch_size,
        "drop_last": deal.drop_last,
        "seed": deal.seed,
        "order": digest_of(order),
    }
