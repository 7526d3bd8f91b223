"""Several processes that share the steps of one run, on one machine or on several; one alone needs nothing of this.

Each process has all weights and a share of the batch. After the last loss of a step the gradients are averaged, once,
and every process makes the same step from them. So nothing depends on how often a method asks its networks, or on how
many losses it has. (`DistributedDataParallel` averages within each backward pass, and has to know which is the last.)

What one process finds out, or fails at, all are told: the first raises it, the others `Stopped`.
"""

from __future__ import annotations

import atexit
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from fewstep.core.errors import InvalidInput
from fewstep.training.place import Place, check_launcher, launched

PATIENCE = timedelta(days=2)
"""How long a process waits for the others, as one of them may draw or measure for hours. A lost one is seen at once."""
BUCKET = 1 << 26
"""Bytes of gradients that are averaged together."""

CPU = torch.device("cpu")

T = TypeVar("T")


class Stopped(RuntimeError):
    """Another process of the run failed, and says why, or was lost."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: its number, 0 .. count - 1; 0 is the one that writes and speaks.
        device: where its collectives take their numbers from.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @staticmethod
    def joined(place: Place) -> Processes:
        """Those that a launcher, such as torchrun, started, joined once; without a launcher this one alone.

        Raises `InvalidInput` where accelerate is not installed, or the launcher asks for what is not done here.
        """
        check_launcher(place)
        if launched() == 1:
            return Processes()
        try:
            from accelerate import PartialState
        except ModuleNotFoundError as error:
            raise InvalidInput("several processes need accelerate: pip install 'fewstep[train]'") from error
        state = PartialState(cpu=place.here.type == "cpu", timeout=PATIENCE)
        atexit.unregister(leave)
        atexit.register(leave)
        return Processes(state.process_index, state.num_processes, place.here)

    @property
    def main(self) -> bool:
        """Whether this one writes and speaks."""
        return self.rank == 0

    def share(self, total: int, parts: int) -> list[range]:
        """The places 0 .. total - 1 of a step that are this process's, in so many parts.

        Raises `InvalidInput` where they cannot be shared out equally.
        """
        if total % (self.count * parts):
            raise InvalidInput(
                f"a batch of {total} cannot be shared out to {self.count} processes in {parts} equal parts each: give "
                f"a multiple of {self.count * parts}"
            )
        size = total // (self.count * parts)
        first = self.rank * size * parts
        return [range(first + i * size, first + (i + 1) * size) for i in range(parts)]

    def on_main(self, work: Callable[[], T]) -> T:
        """What the main process finds; the others wait for it and are given it.

        Its error is raised there, and `Stopped` in the others.
        """
        if self.count == 1:
            return work()
        found: list[Any] = [None, None]
        error: Exception | None = None
        if self.main:
            try:
                found = [work(), None]
            except Exception as failed:  # noqa: BLE001  # it is raised below
                error, found = failed, [None, str(failed)]
        with _seen():
            distributed.broadcast_object_list(found, src=0, device=self.device)
        if error is not None:
            raise error
        if found[1] is not None:
            raise Stopped(f"the first process stopped: {found[1]}")
        return found[0]

    def main_first(self, work: Callable[[], T]) -> T:
        """What each process finds by the same work: the main one first, so that the others find what it has written."""
        found: list[T] = []
        self.on_main(lambda: found.append(work()))
        return self.together(lambda: found[0] if found else work())

    def together(self, work: Callable[[], T]) -> T:
        """What each process finds by work of its own. What one fails at is raised in all, as `agree` does."""
        if self.count == 1:
            return work()
        found: list[T] = []
        failed: Exception | None = None
        try:
            found.append(work())
        except Exception as error:  # noqa: BLE001  # it is raised once all know
            failed = error
        self.agree(failed)
        return found[0]

    def agree(self, error: Exception | None) -> None:
        """Raise what any process failed at: in the first one, and `Stopped` in the others. All of them call this."""
        if self.count == 1:
            if error is not None:
                raise error
            return
        failed = torch.tensor([error is not None], dtype=torch.int32, device=self.device)
        with _seen():
            distributed.all_reduce(failed)
        if not failed.item():
            return
        found = self.gathered(None if error is None else portable(error))
        first = next(one for one in found if one is not None)
        if self.main:
            raise first if error is None else error
        raise Stopped(f"a process stopped: {first}") from error

    def gathered(self, value: T) -> list[T]:
        """What each process has, by their numbers."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        with _seen():
            distributed.all_gather_object(found, value)
        return found

    def mean(self, values: Sequence[float]) -> list[float]:
        """The means of some numbers over all processes."""
        if self.count == 1 or not values:
            return list(values)
        sums = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        with _seen():
            distributed.all_reduce(sums)
        return (sums / self.count).tolist()

    @torch.no_grad()
    def average_gradients(self, weights: Sequence[nn.Parameter]) -> None:
        """Each gradient becomes its mean over all processes; one that no process has stays none."""
        if self.count == 1:
            return
        there = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32, device=self.device)
        with _seen():
            distributed.all_reduce(there)
        gradients = []
        for weight, processes in zip(weights, there.tolist(), strict=True):
            if processes:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                gradients.append(weight.grad)
        for bucket in buckets(gradients):
            flat = torch.cat([one.flatten() for one in bucket]).to(self.device)
            with _seen():
                distributed.all_reduce(flat)
            for one, mean in zip(bucket, flat.div_(self.count).split([one.numel() for one in bucket]), strict=True):
                one.copy_(mean.reshape(one.shape))

    @torch.no_grad()
    def take_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Some tensors become those of the main process."""
        if self.count == 1:
            return
        for tensor in tensors:
            told = tensor.detach().to(self.device, copy=True)
            with _seen():
                distributed.broadcast(told, src=0)
            tensor.copy_(told)


def portable(error: Exception) -> Exception:
    """An error as another process can be told it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  # some take other arguments than they keep
        return Stopped(f"{type(error).__name__}: {error}")
    return error


def buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one kind and together not too large, in their order."""
    bucket: list[Tensor] = []
    for one in gradients:
        if bucket and (one.dtype is not bucket[0].dtype or sum(map(_bytes, bucket)) + _bytes(one) > BUCKET):
            yield bucket
            bucket = []
        bucket.append(one)
    if bucket:
        yield bucket


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def _seen() -> Iterator[None]:
    """A collective; where another process is lost meanwhile, `Stopped` says so."""
    try:
        yield
    except RuntimeError as error:
        raise Stopped("another process of the run was lost: the same command goes on from the last state") from error


def leave() -> None:
    """At the end of a process: gloo's threads end, as the end of one that still runs would be an abort. NCCL has none,
    and would wait here for processes that failed.
    """
    if distributed.is_initialized() and distributed.get_backend() == distributed.Backend.GLOO:
        distributed.destroy_process_group()
