"""Pictures in memory: of an `.npz` file, or the project's digits.

An `.npz` holds `images`, bytes (N, H, W) or (N, H, W, C) of 1, 3 or 4 channels, or as many numbers in [0, 1]; and
`labels`, whole numbers (N,) from 0, where there are classes. Bytes are scaled to the size that the model takes, numbers
are taken as they are.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewstep.core.errors import InvalidInput, shown
from fewstep.data.source import Sample, Told
from fewstep.zoo import digits

MOST_BYTES = 32 << 30
"""Most bytes that the arrays of a file may unfold to."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """Pictures in one array.

    Attributes:
        where: for messages.
        images: bytes (N, H, W, C), or numbers (N, C, H, W) in [-1, 1] as a tensor.
        labels: (N,), or None.
        classes: 0 without labels.
    """

    where: str
    images: NDArray[np.uint8] | Tensor
    labels: NDArray[np.int64] | None
    classes: int
    digest: str

    @staticmethod
    def of(path: str | os.PathLike[str]) -> Arrays:
        """The arrays of an .npz file. Raises OSError, and `InvalidInput` where it does not hold what it has to."""
        path = Path(path)
        arrays = _read(path)
        if "images" not in arrays:
            raise InvalidInput(f"{path} holds {sorted(arrays)[:8]}: name the array of the pictures images")
        unknown = sorted(set(arrays) - {"images", "labels"})
        if unknown:
            raise InvalidInput(f"{path} holds {unknown[:8]} too: only images and labels are read, so leave these out")
        images = _images(arrays["images"], str(path))
        labels = _labels(arrays.get("labels"), len(images), str(path))
        return Arrays.made(str(path), images, labels)

    @staticmethod
    def digits() -> Arrays:
        """The digits of scikit-learn. Raises `InvalidInput` where it is not installed."""
        found = digits.load()
        return Arrays.made("digits", found.images, found.labels.numpy())

    @staticmethod
    def made(where: str, images: NDArray[np.uint8] | Tensor, labels: NDArray[np.int64] | None) -> Arrays:
        """With the digest of their content."""
        state = hashlib.sha256(f"{images.dtype} {tuple(images.shape)} {labels is not None}".encode())
        for one in (np.asarray(images), labels):
            state.update(b"" if one is None else np.ascontiguousarray(one).data)
        classes = 0 if labels is None else int(labels.max()) + 1
        return Arrays(where, images, labels, classes, state.hexdigest()[:16])

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.images)

    @property
    def told(self) -> Told:
        """Labels, where there are some."""
        return "nothing" if self.labels is None else "labels"

    @property
    def identity(self) -> Mapping[str, Any]:
        """By their content."""
        return {"kind": "arrays", "count": self.count, "digest": self.digest}

    def name(self, number: int) -> str:
        """The place in the array."""
        return f"{self.where}[{number}]"

    def read(self, number: int) -> Sample:
        """A picture and its label."""
        label = None if self.labels is None else int(self.labels[number])
        one = self.images[number]
        if isinstance(one, Tensor):
            return Sample(one, label)
        return Sample(Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one), label)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file, whose sizes are looked at before any is read."""
    try:
        with zipfile.ZipFile(path) as file:
            unfolded = sum(one.file_size for one in file.infolist())
        if unfolded > MOST_BYTES:
            raise InvalidInput(f"{path} unfolds to {unfolded:,} bytes; at most {MOST_BYTES:,} are read: use a folder")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except InvalidInput:
        raise
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{path} is not an .npz file of plain arrays, or is damaged ({error})") from error


def _images(array: NDArray[Any], where: str) -> NDArray[np.uint8] | Tensor:
    found = array[..., None] if array.ndim == 3 else array
    if found.ndim != 4 or not found.size or found.shape[-1] not in (1, 3, 4):
        raise InvalidInput(
            f"the images of {where} have shape {array.shape}; they have to be (N, H, W) or (N, H, W, C) of 1, 3 or 4 "
            "channels, which come last"
        )
    if found.dtype == np.uint8:
        return found
    if not np.issubdtype(found.dtype, np.floating) or found.shape[-1] == 4:
        raise InvalidInput(
            f"the images of {where} are {found.dtype} of {found.shape[-1]} channels: give bytes (uint8), or numbers in "
            "[0, 1] of 1 or 3 channels"
        )
    low, high = float(found.min()), float(found.max())
    if not 0 <= low <= high <= 1:  # which is false of NaN too
        raise InvalidInput(f"the images of {where} lie in {low:g} .. {high:g}; numbers have to lie in [0, 1]")
    return torch.from_numpy(found.astype(np.float32) * 2 - 1).permute(0, 3, 1, 2).contiguous()


def _labels(array: NDArray[Any] | None, count: int, where: str) -> NDArray[np.int64] | None:
    if array is None:
        return None
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        raise InvalidInput(
            f"the labels of {where} are {array.dtype} of shape {array.shape}; they have to be whole numbers ({count},)"
        )
    if int(array.min()) < 0 or int(array.max()) >= 100_000:
        raise InvalidInput(
            f"the labels of {where} go from {shown(int(array.min()))} to {shown(int(array.max()))}; they have to lie "
            "in 0 .. 99,999"
        )
    return array.astype(np.int64)
