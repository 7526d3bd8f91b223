"""The largest batch that fits, as a power of two.

On a CUDA device by trying: the first batch is drawn as large as it may be, and halved while memory runs out. Elsewhere
the system does not refuse memory in time. So one image is drawn in one step, the most bytes of tensors alive at once
are counted, and the batch has as many images as fit into half of the free memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fewstep.core.errors import InvalidInput
from fewstep.run.memory import free_bytes

T = TypeVar("T")
MOST, SHARE = 64, 0.5
"""Most images of a batch that is found, and the share of free memory that they may take on the host."""


class LiveBytes(TorchDispatchMode):
    """While it is active, counts the bytes of tensors that operations of this thread make: `now`, and `peak`.

    What a kernel takes and returns inside itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        before = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and (address := _address(leaf)) not in before | self._alive:
                storage = leaf.untyped_storage()
                self._alive.add(address)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, address, storage.nbytes())
        return result

    def _gone(self, address: int, size: int) -> None:
        self._alive.discard(address)
        self.now -= size


def first_size(images: int, device: torch.device | str, draw_one: Callable[[], Any]) -> int:
    """The size to begin with: a power of two, at most `images` and 64.

    Args:
        draw_one: draws a batch of one image in one step; it is called on the host alone.
    """
    most = _power(min(images, MOST))
    if torch.device(device).type == "cuda":
        return most
    with LiveBytes() as counted:
        draw_one()
    return min(most, _power(int(SHARE * free_bytes() // max(counted.peak, 1))))


def halved(size: int, draw: Callable[[int], T]) -> tuple[int, T]:
    """`size`, halved while `draw(size)` runs out of the memory of a CUDA device, and what it returned.

    Raises:
        InvalidInput: not even one image fits.
    """
    while True:
        try:
            return size, draw(size)
        except torch.cuda.OutOfMemoryError as error:
            if size == 1:
                raise InvalidInput(
                    "not even one image fits into the memory of the device: draw smaller ones, or use --sliced, "
                    "--tiled or --dtype float16"
                ) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size //= 2


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _power(number: int) -> int:
    """The largest power of two up to a number, at least 1."""
    return 1 << max(number, 1).bit_length() - 1
