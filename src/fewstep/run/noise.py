"""Unit noise named by (seed of the image, interval of time), never by the order of drawing.

So an image is the same whoever shares its batch, a run that starts in the middle of another's grid meets the same
noise, and no global random state is read or changed. Philox (Salmon et al. 2011) is counter based: its 128-bit key is
the pair itself. Noise is drawn in float32 on the host and is the same on every device and in every precision.
"""

from __future__ import annotations

import hashlib
import operator
import struct
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Interval

START = 0
"""The key of the noise that a run starts from."""

MASK = 2**64 - 1


def key_of(interval: Interval) -> int:
    """The 64-bit key of a noise interval."""
    packed = struct.pack("<ddq", interval.start, interval.end, interval.repeat)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") or 1


class Source:
    """Generators of one key, one for each seed. Making it costs 20 times as much as asking it."""

    def __init__(self, key: int) -> None:
        self._bits = np.random.Philox(key=[0, key])
        self._generator = np.random.Generator(self._bits)
        self._state = self._bits.state

    def of(self, seed: int) -> np.random.Generator:
        """The generator of a seed, at its beginning; it is the same object for the next one."""
        self._state["state"]["key"][0] = seed & MASK
        self._bits.state = self._state
        return self._generator


def draw(seed: int, key: int, out: np.ndarray) -> None:
    """Fill the float32 array `out` with unit noise."""
    Source(key).of(seed).standard_normal(dtype=np.float32, out=out)


def unit_noise(seeds: Sequence[int], key: int, like: Tensor) -> Tensor:
    """Unit noise in the shape, dtype and on the device of `like` (B, ..), image i from seeds[i]."""
    host, source = np.empty(tuple(like.shape), np.float32), Source(key)
    for image, seed in zip(host, seeds, strict=True):
        source.of(seed).standard_normal(dtype=np.float32, out=image)
    return torch.from_numpy(host).to(like.device, like.dtype, non_blocking=True)


def seeds_of(seed: int | Sequence[int], batch: int) -> list[int]:
    """One seed for each image: the given ones, or seed, seed + 1, .. from a single one."""
    try:
        first = operator.index(seed)  # type: ignore[arg-type]
        return [first + i for i in range(batch)]
    except TypeError:
        pass
    try:
        seeds = [operator.index(s) for s in seed]  # type: ignore[union-attr]
    except TypeError as error:
        raise InvalidInput(f"a seed is an integer, or one for each image, got {seed!r}") from error
    if len(seeds) != batch:
        raise InvalidInput(f"give one seed, or one for each of the {batch} images, got {len(seeds)}")
    return seeds
