"""How much memory some work takes at its peak, beside what was there before."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocated:
    """Within it, memory that tensors take on a device is counted; `peak` is the most at once, in bytes.

    On a CUDA device it is what torch's allocator says. On the host, which says nothing, it is the memory of the tensors
    that operations return, as long as these live.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.tensors = device, _Tensors()
        self.before = self.peak = 0

    def __enter__(self) -> Allocated:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
        else:
            self.tensors.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device) - self.before
        else:
            self.tensors.__exit__(kind, error, trace)
            self.peak = self.tensors.peak


class _Tensors(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.known: set[int] = set()
        self.live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in tree_leaves((args, kwargs)):
            if isinstance(given, Tensor):
                self.count(given, new=False)
        found = func(*args, **(kwargs or {}))
        for made in tree_leaves(found):
            if isinstance(made, Tensor):
                self.count(made, new=True)
        return found

    def count(self, tensor: Tensor, new: bool) -> None:
        """Take in the memory of a tensor, unless it is known; what is given to an operation was there before."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        size = storage.nbytes() if new else 0
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self.gone, key, size)

    def gone(self, key: int, size: int) -> None:
        """The memory is free again."""
        self.known.discard(key)
        self.live -= size
