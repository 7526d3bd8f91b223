"""A small set of labelled images in memory, and its seeded split into a training and a held-out part."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images that fit in memory.

    Attributes:
        name: for messages and for the checkpoint's training facts.
        images: float32, shape (N, channels, size, size), within value_range.
        labels: int64, shape (N,), 0 to classes - 1.
        classes: number of classes.
        value_range: least and greatest value that a pixel can have.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: int
    value_range: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        images, labels, (low, high) = self.images, self.labels, self.value_range
        if images.dtype != torch.float32 or images.ndim != 4 or images.shape[2] != images.shape[3] or not len(images):
            raise InvalidInput(
                f"images of {self.name!r} are {images.dtype} of shape {tuple(images.shape)}; "
                "give float32 of shape (N, channels, size, size), N at least 1"
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise InvalidInput(
                f"labels of {self.name!r} are {labels.dtype} of shape {tuple(labels.shape)}; "
                f"give int64 of ({len(images)},)"
            )
        if int(labels.min()) < 0 or int(labels.max()) >= self.classes:
            raise InvalidInput(
                f"labels of {self.name!r} go from {int(labels.min())} to {int(labels.max())}; "
                f"allowed are 0 to {self.classes - 1} ({self.classes} classes)"
            )
        if not bool(((images >= low) & (images <= high)).all()):
            raise InvalidInput(
                f"pixels of {self.name!r} go from {float(images.min()):g} to {float(images.max()):g}; "
                f"scale them to {low:g} .. {high:g}, without NaN"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of a SHA-256 over the pixels and labels."""
        state = hashlib.sha256(f"{tuple(self.images.shape)} {self.classes} {self.value_range}".encode())
        state.update(self.images.contiguous().numpy().astype("<f4", copy=False).tobytes())
        state.update(self.labels.contiguous().numpy().astype("<i8", copy=False).tobytes())
        return state.hexdigest()[:16]

    def split(self, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
        """(training, held out): of every class `fraction` is held out, rounded, chosen by `seed`.

        Raises:
            InvalidInput: `fraction` is outside (0, 1), or leaves one of the two parts empty.
        """
        if not 0 < fraction < 1:
            raise InvalidInput(f"the held-out fraction is {fraction!r}; it has to lie between 0 and 1, as 0.1")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        held = torch.zeros(len(self), dtype=torch.bool)
        for label in range(self.classes):
            members = order[self.labels[order] == label]
            held[members[: round(fraction * len(members))]] = True
        if not held.any() or held.all():
            raise InvalidInput(
                f"holding out {fraction:g} of {len(self)} images in {self.classes} classes leaves one part "
                "empty; give more images or another fraction"
            )
        return self._take(~held), self._take(held)

    def _take(self, mask: Tensor) -> ImageSet:
        return ImageSet(self.name, self.images[mask], self.labels[mask], self.classes, self.value_range)
