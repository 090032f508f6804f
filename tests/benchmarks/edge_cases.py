"""Cases at the edge, each on two ranks through one tool, the way that tool's documentation says.

    python -m tests.benchmarks.edge_cases TOOL [CASE ...]

prints one JSON object: case -> what happened. Each rank is a forked child, so that one that hangs or dies is left.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from multiprocessing import Process, Queue
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

HANG_SECONDS = 60
LEARNING_RATE = 0.1


class Hpc:
    """A Runtime."""

    MODULE = "hpc.runtime.runtime"
    SAVES_ITSELF = True

    def __init__(self, directory: Path, accumulation: int = 1) -> None:
        config = {
            "run_dir": str(directory),
            "runtime": {"device": "cpu", "trackers": []},
            "strategy": {"accumulation_steps": accumulation},
        }
        self.here = import_module("hpc").Runtime(config)
        self.here.__enter__()

    def prepare(self, *things: Any) -> Any:
        return self.here.prepare(*things)

    def gather(self, values: Any) -> Any:
        return self.here.gather(values)

    def gather_samples(self, values: Any) -> Any:
        return self.here.gather_for_metrics(values)

    def clip(self, model: Any, optimizer: Any) -> Any:  # noqa: ARG002
        return self.here.clip_grad_norm_(1.0)

    def register(self, thing: Any) -> None:
        self.here.register("thing", thing)

    def epochs(self, loader: Any, total: int) -> Iterator[Iterator[Any]]:
        yield from self.here.epochs(loader, total=total)

    def micro_batch(self, model: Any, optimizer: Any, loss: Callable[[], Any], is_last: bool) -> None:  # noqa: ARG002
        self.here.backward(loss())
        optimizer.step()
        optimizer.zero_grad()

    def backward(self, loss: Any) -> None:
        self.here.backward(loss)

    def save(self, directory: Path, model: Any, optimizer: Any, others: dict[str, Any]) -> None:  # noqa: ARG002
        self.here.save()

    def load(self, directory: Path, model: Any, optimizer: Any, others: dict[str, Any]) -> None:  # noqa: ARG002
        self.here.resume()

    def rest_of_epoch(self, loader: Any, done: int) -> Iterator[Any]:  # noqa: ARG002
        for epoch in self.here.epochs(loader, total=1):
            yield from epoch

    def stop(self) -> None:
        """As the signal of a scheduler does."""
        self.here.requests.ask(import_module("hpc.stop.requests").StopCause.SIGTERM)

    def close(self) -> None:
        self.here.requests.cause = import_module("hpc.stop.requests").StopCause.NONE
        self.here.__exit__(None, None, None)
        import_module("hpc.runtime.loops").trained_here().clear()  # what follows plays the part of another process


class Accelerate:
    """An Accelerator."""

    MODULE = "accelerate"
    SAVES_ITSELF = False

    def __init__(self, directory: Path, accumulation: int = 1) -> None:  # noqa: ARG002
        self.here = import_module("accelerate").Accelerator(cpu=True, gradient_accumulation_steps=accumulation)

    def prepare(self, *things: Any) -> Any:
        return self.here.prepare(*things)

    def gather(self, values: Any) -> Any:
        return self.here.gather(values)

    def gather_samples(self, values: Any) -> Any:
        return self.here.gather_for_metrics(values)

    def clip(self, model: Any, optimizer: Any) -> Any:  # noqa: ARG002
        return self.here.clip_grad_norm_(model.parameters(), 1.0)

    def register(self, thing: Any) -> None:
        self.here.register_for_checkpointing(thing)

    def epochs(self, loader: Any, total: int) -> Iterator[Iterator[Any]]:
        for _ in range(total):
            yield iter(loader)

    def micro_batch(self, model: Any, optimizer: Any, loss: Callable[[], Any], is_last: bool) -> None:  # noqa: ARG002
        with self.here.accumulate(model):
            self.here.backward(loss())
            optimizer.step()
            optimizer.zero_grad()

    def backward(self, loss: Any) -> None:
        self.here.backward(loss)

    def save(self, directory: Path, model: Any, optimizer: Any, others: dict[str, Any]) -> None:  # noqa: ARG002
        self.here.save_state(str(directory))

    def load(self, directory: Path, model: Any, optimizer: Any, others: dict[str, Any]) -> None:  # noqa: ARG002
        self.here.load_state(str(directory))

    def rest_of_epoch(self, loader: Any, done: int) -> Iterator[Any]:
        yield from self.here.skip_first_batches(loader, done)

    def stop(self) -> None:
        """The loop saves by itself."""

    def close(self) -> None:
        self.here.wait_for_everyone()


class Fabric:
    """A Fabric with strategy ddp."""

    MODULE = "lightning_fabric"
    SAVES_ITSELF = False

    def __init__(self, directory: Path, accumulation: int = 1) -> None:  # noqa: ARG002
        fabric = import_module("lightning_fabric").Fabric
        self.here = fabric(accelerator="cpu", devices=2, strategy="ddp")
        self.here.launch()
        self.accumulation, self.count = accumulation, 0

    def prepare(self, *things: Any) -> Any:
        ready: dict[int, Any] = {}
        models = [each for each in things if isinstance(each, nn.Module)]
        optimizers = [each for each in things if isinstance(each, torch.optim.Optimizer)]
        if models:
            done = self.here.setup(*models, *optimizers)
            done = done if isinstance(done, tuple) else (done,)
            ready.update(zip(map(id, [*models, *optimizers]), done, strict=True))
        for each in things:
            if isinstance(each, DataLoader):
                ready[id(each)] = self.here.setup_dataloaders(each)
        found = tuple(ready.get(id(each), each) for each in things)
        return found if len(found) > 1 else found[0]

    def gather(self, values: Any) -> Any:
        found = self.here.all_gather(values)
        return found.flatten(0, 1) if isinstance(found, torch.Tensor) and found.dim() > 1 else found

    def gather_samples(self, values: Any) -> Any:
        return self.gather(values)

    def clip(self, model: Any, optimizer: Any) -> Any:
        return self.here.clip_gradients(model, optimizer, max_norm=1.0)

    def register(self, thing: Any) -> None:
        """What is saved is named where it is saved."""

    def epochs(self, loader: Any, total: int) -> Iterator[Iterator[Any]]:
        for _ in range(total):
            yield iter(loader)

    def micro_batch(self, model: Any, optimizer: Any, loss: Callable[[], Any], is_last: bool) -> None:
        self.count += 1
        is_accumulating = self.count % self.accumulation != 0 and not is_last
        with self.here.no_backward_sync(model, enabled=is_accumulating):
            self.here.backward(loss() / self.accumulation)
        if not is_accumulating:
            optimizer.step()
            optimizer.zero_grad()

    def backward(self, loss: Any) -> None:
        self.here.backward(loss)

    def save(self, directory: Path, model: Any, optimizer: Any, others: dict[str, Any]) -> None:
        self.here.save(directory / "state.ckpt", {"model": model, "optimizer": optimizer, **others})

    def load(self, directory: Path, model: Any, optimizer: Any, others: dict[str, Any]) -> None:
        self.here.load(directory / "state.ckpt", {"model": model, "optimizer": optimizer, **others})

    def rest_of_epoch(self, loader: Any, done: int) -> Iterator[Any]:
        for number, batch in enumerate(loader):
            if number >= done:
                yield batch

    def stop(self) -> None:
        """The loop saves by itself."""

    def close(self) -> None:
        self.here.barrier()


TOOLS: dict[str, Any] = {"hpc": Hpc, "Accelerate": Accelerate, "Fabric": Fabric}
Case = Callable[[Any, Path, int], Any]


def numbers(count: int = 16, **options: Any) -> DataLoader[Any]:
    """Samples that are their own numbers; two in a batch."""
    return DataLoader(TensorDataset(torch.arange(float(count))[:, None]), **{"batch_size": 2, **options})


def layer(kind: type[nn.Module] = nn.Linear) -> nn.Module:
    """The same weights on all ranks."""
    torch.manual_seed(5)
    return kind(1, 1)


def sgd(model: nn.Module, lr: Any = LEARNING_RATE) -> torch.optim.Optimizer:
    return torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=lr)


def error(model: Any, x: torch.Tensor) -> torch.Tensor:
    """The line x + 1 is to be learnt; small numbers keep it from diverging."""
    loss: torch.Tensor = ((model(x / 16) - x / 16 - 1) ** 2).mean()
    return loss


def weights(model: nn.Module) -> list[float]:
    return [round(float(each), 5) for parameter in model.parameters() for each in parameter.detach().flatten()]


def gather_a_float(tool: Any, directory: Path, rank: int) -> Any:
    return tool(directory).gather(rank + 0.5)


def gather_words(tool: Any, directory: Path, rank: int) -> Any:
    return tool(directory).gather(f"rank {rank}")


def gather_a_mapping(tool: Any, directory: Path, rank: int) -> Any:
    return tool(directory).gather({"loss": torch.tensor([rank + 0.5]), "name": f"rank {rank}"})


def gather_uneven_rows(tool: Any, directory: Path, rank: int) -> Any:
    return tool(directory).gather(torch.full((2 + rank, 1), float(rank))).flatten()


def gather_other_types(tool: Any, directory: Path, rank: int) -> Any:
    return tool(directory).gather(torch.ones(2, dtype=torch.float64 if rank else torch.float32))


def every_sample_once(tool: Any, directory: Path, rank: int) -> Any:  # noqa: ARG001
    here = tool(directory)
    loader = here.prepare(numbers(9))
    return sorted(float(each) for (x,) in loader for each in here.gather_samples(x).flatten())


def full_batches_only(tool: Any, directory: Path, rank: int) -> Any:  # noqa: ARG001
    here = tool(directory)
    sizes = [len(x) for (x,) in here.prepare(numbers(11, drop_last=True))]
    return [sizes, len(here.prepare(numbers(11, drop_last=True)))]


def shuffles_anew(tool: Any, directory: Path, rank: int) -> Any:  # noqa: ARG001
    loader = tool(directory).prepare(numbers(64, shuffle=True))
    first, second = ([x.tolist() for (x,) in loader] for _ in range(2))
    return first != second


def nan_on_one_rank(tool: Any, directory: Path, rank: int) -> Any:
    here = tool(directory)
    model = layer()
    model, optimizer, loader = here.prepare(model, sgd(model), numbers())
    for epoch in here.epochs(loader, 1):
        for number, (x,) in enumerate(epoch):
            factor = math.nan if number == 1 and rank == 1 else 1.0
            here.micro_batch(model, optimizer, lambda x=x, factor=factor: error(model, x) * factor, is_last=True)
    return weights(model)


class TwoLayers(nn.Module):
    """The first is frozen for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> Any:
        return self.second(self.first(x))


def unfrozen_layer(tool: Any, directory: Path, rank: int) -> Any:  # noqa: ARG001
    here = tool(directory)
    torch.manual_seed(5)
    model: Any = TwoLayers()
    first = model.first
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    first.requires_grad_(False)
    model, optimizer, loader = here.prepare(model, optimizer, numbers())
    for epoch in here.epochs(loader, 1):
        for number, (x,) in enumerate(epoch):
            first.requires_grad_(number >= 2)
            here.micro_batch(model, optimizer, lambda x=x: error(model, x), is_last=True)
    return weights(model)


def two_lives(tool: Any, directory: Path, kind: type[nn.Module], lr: Any, each: Callable[[Any], Any]) -> Any:
    """Train a step, save, build everything anew, load; what `each` sees of optimizer and model then."""
    for life in range(2):
        here = tool(directory)
        model = layer(kind)
        inner = model
        model, optimizer = here.prepare(model, sgd(model, lr))
        if life:
            here.load(directory, model, optimizer, {})
            return each((inner, optimizer))
        inner.seen = 3  # type: ignore[assignment]
        if here.SAVES_ITSELF:
            here.load(directory, model, optimizer, {})
        here.micro_batch(model, optimizer, lambda model=model: error(model, torch.ones(1, 1)), is_last=True)
        if here.SAVES_ITSELF:
            here.here.end_step()
        here.save(directory, model, optimizer, {})
        here.close()
    return None


def numpy_learning_rate(tool: Any, directory: Path, rank: int) -> Any:  # noqa: ARG001
    np = import_module("numpy")
    rate = np.float64(0.25)
    return two_lives(tool, directory, nn.Linear, rate, lambda both: float(both[1].param_groups[0]["lr"]))


class Counting(nn.Linear):
    """Keeps a number that is no tensor."""

    seen = 0

    def get_extra_state(self) -> Any:
        return {"seen": self.seen}

    def set_extra_state(self, state: Any) -> None:
        self.seen = state["seen"]


def extra_state(tool: Any, directory: Path, rank: int) -> Any:  # noqa: ARG001
    return two_lives(tool, directory, Counting, LEARNING_RATE, lambda both: both[0].seen)


def middle_of_an_epoch(tool: Any, directory: Path, rank: int) -> Any:  # noqa: ARG001
    """Stopped after three batches of a shuffled epoch of eight, and resumed: every sample once."""
    seen: list[float] = []
    for life in range(2):
        here = tool(directory)
        torch.manual_seed(11 + life)  # two processes never have the same state by chance
        model = layer()
        model, optimizer, loader = here.prepare(model, sgd(model), numbers(32, shuffle=True))
        if life and not here.SAVES_ITSELF:
            here.load(directory, model, optimizer, {})
        batches = here.rest_of_epoch(loader, 3) if life or here.SAVES_ITSELF else iter(loader)
        with contextlib.suppress(SystemExit):  # hpc leaves with 75, which asks for the second life
            for number, (x,) in enumerate(batches):
                seen += here.gather(x).flatten().tolist()
                if number == 2 and not life:
                    here.stop()
                try_step(here, model, optimizer, x)
                if number == 2 and not life and not here.SAVES_ITSELF:
                    here.save(directory, model, optimizer, {})
                    break
        here.close()
    return len(seen), len(set(seen))


def try_step(here: Any, model: Any, optimizer: Any, x: torch.Tensor) -> None:
    here.micro_batch(model, optimizer, lambda: error(model, x), is_last=True)


def scheduler_of_prepared(tool: Any, directory: Path, rank: int) -> Any:  # noqa: ARG001
    here = tool(directory)
    model = layer()
    model, optimizer, loader = here.prepare(model, sgd(model), numbers())
    scheduler = here.prepare(torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step))
    for epoch in here.epochs(loader, 1):
        for (x,) in epoch:
            try_step(here, model, optimizer, x)
            scheduler.step()
    return float(optimizer.param_groups[0]["lr"])


def closure(tool: Any, directory: Path, rank: int) -> Any:  # noqa: ARG001
    """LBFGS asks for the loss several times in one step."""
    here = tool(directory)
    model = layer()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3)
    model, optimizer, loader = here.prepare(model, optimizer, numbers())
    for epoch in here.epochs(loader, 1):
        for (x,) in epoch:
            optimizer.step(closure_of(here, model, optimizer, x))
    return weights(model)


def closure_of(here: Any, model: Any, optimizer: Any, x: torch.Tensor) -> Callable[[], Any]:
    def again() -> Any:
        optimizer.zero_grad()
        loss = error(model, x)
        here.backward(loss)
        return loss

    return again


def data_that_differs(tool: Any, directory: Path, rank: int) -> Any:
    """Each rank brings a data set of its own, of another length."""
    here = tool(directory)
    model = layer()
    model, optimizer, loader = here.prepare(model, sgd(model), numbers(16 + 8 * rank))
    for epoch in here.epochs(loader, 1):
        for (x,) in epoch:
            try_step(here, model, optimizer, x)
    return weights(model)


def short_last_window(tool: Any, directory: Path, rank: int) -> Any:  # noqa: ARG001
    """Three micro-batches of the same samples, two in a window: both steps' gradients are means."""
    here = tool(directory, accumulation=2)
    model = layer()
    samples = DataLoader(TensorDataset(torch.ones(6, 1)), batch_size=1)
    model, optimizer, loader = here.prepare(model, sgd(model), samples)
    for epoch in here.epochs(loader, 1):
        for number, (x,) in enumerate(epoch):
            here.micro_batch(model, optimizer, lambda x=x: error(model, x), is_last=number == 2)
    return weights(model)


def norm_of_gradients(tool: Any, directory: Path, rank: int) -> Any:
    here = tool(directory)
    model = layer()
    model, optimizer = here.prepare(model, sgd(model))
    here.backward(model(torch.full((1, 1), 3.0 + 2 * rank)).sum())
    return round(float(here.clip(model, optimizer)), 4)


def cut_checkpoint(tool: Any, directory: Path, rank: int) -> Any:
    """The newest of two checkpoints was cut on the disk: go on from the older one, or say which file it is."""
    for life in range(2):
        here = tool(directory)
        model = layer()
        model, optimizer = here.prepare(model, sgd(model))
        if life:
            here.load(directory if here.SAVES_ITSELF else directory / "1", model, optimizer, {})
            return here.here.step if here.SAVES_ITSELF else 2
        if here.SAVES_ITSELF:
            here.load(directory, model, optimizer, {})
        for number in range(2):
            here.micro_batch(model, optimizer, lambda model=model: error(model, torch.ones(1, 1)), is_last=True)
            if here.SAVES_ITSELF:
                here.here.end_step()
            here.save(directory / str(number), model, optimizer, {})
        here.close()
        if rank == 0:
            newest = directory / "checkpoints" / "step_00000002" if here.SAVES_ITSELF else directory / "1"
            (weights_of_it,) = [each for each in newest.iterdir() if each.name.startswith(("model", "state"))]
            os.truncate(weights_of_it, weights_of_it.stat().st_size // 2)
        torch.distributed.barrier()
    return None


CASES: dict[str, Case] = {
    "gather a float": gather_a_float,
    "gather a string": gather_words,
    "gather a dict of a tensor and a string": gather_a_mapping,
    "gather 2 and 3 rows": gather_uneven_rows,
    "gather float32 and float64": gather_other_types,
    "9 samples in batches of 2: metrics see each once": every_sample_once,
    "drop_last with 11 samples": full_batches_only,
    "a plain epoch loop shuffles anew": shuffles_anew,
    "the loss is NaN on one rank, once": nan_on_one_rank,
    "a layer is unfrozen in the third step": unfrozen_layer,
    "a NumPy learning rate is saved and loaded": numpy_learning_rate,
    "extra state of a module is saved and loaded": extra_state,
    "stopped and resumed in the middle of a shuffled epoch": middle_of_an_epoch,
    "a scheduler built on the prepared optimizer, 4 steps": scheduler_of_prepared,
    "LBFGS with a closure": closure,
    "data sets of 16 and 24 samples on the ranks": data_that_differs,
    "3 micro-batches, accumulated by 2": short_last_window,
    "the norm that clipping returns": norm_of_gradients,
    "the newest checkpoint was cut on the disk": cut_checkpoint,
}


def main() -> None:
    """Run the cases and print what happened."""
    name, *wanted = sys.argv[1:]
    for module in (
        "torch.distributed",
        *{"hpc": ("hpc.runtime.runtime",), "Accelerate": ("accelerate",)}.get(name, ()),
    ):
        import_module(module)
    if name == "Fabric":
        import_module("lightning_fabric")
    found = {case: happened(name, case) for case in CASES if not wanted or case in wanted}
    print(json.dumps(found))


def happened(name: str, case: str) -> list[Any]:
    """For each rank ["value", ...], ["error", class, text], ["died", code] or ["hangs"]."""
    queues: list[Queue[Any]] = [Queue(), Queue()]
    with tempfile.TemporaryDirectory(prefix="edges") as directory, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        ranks = [Process(target=_rank, args=(queues[rank], name, case, Path(directory), rank, port)) for rank in (0, 1)]
        for each in ranks:
            each.start()
        deadline = time.monotonic() + HANG_SECONDS
        answers = [_await(queue, each, deadline) for queue, each in zip(queues, ranks, strict=True)]
        for each in ranks:
            each.kill()
            each.join()
    return answers


def _rank(queue: Queue[Any], name: str, case: str, directory: Path, rank: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0",
        GROUP_WORLD_SIZE="1",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID=str(port), TORCHELASTIC_RESTART_COUNT="0",
        GLOO_SOCKET_IFNAME="lo", ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    if "EDGES_SHOW" not in os.environ:
        os.dup2(sink, 2)
    torch.set_num_threads(1)
    try:
        answer = ["value", json.loads(json.dumps(CASES[case](TOOLS[name], directory, rank), default=_plain))]
    except BaseException as problem:
        answer = ["error", type(problem).__name__, str(problem)]
        traceback.print_exc()
    queue.put(answer)
    queue.close()
    queue.join_thread()
    signal.pause()  # until both have answered: the other rank may still need this one's store


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _await(queue: Queue[Any], process: Process, deadline: float) -> Any:
    while True:
        try:
            return queue.get(timeout=0.5)
        except Empty:
            if process.exitcode is not None:
                return ["died", process.exitcode]
            if time.monotonic() > deadline:
                return ["hangs"]


if __name__ == "__main__":
    main()
