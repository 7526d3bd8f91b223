"""A small network of labels for tests of guidance, which counts the images that it is asked for."""

from __future__ import annotations

import torch
from torch import Tensor

SHAPE = (3, 2, 4)
LABELS, EMPTY = torch.tensor([1.0, 2.0, 3.0]), torch.zeros(1)


class Counting:
    """`network(x, t, label)`, nonlinear in all three; `calls` are the batch sizes, `labels` what came with them."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.labels: list[list[float]] = []

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        self.calls.append(x.shape[0])
        self.labels.append(label.tolist())
        return torch.sin(x + label.reshape(-1, 1, 1) + t.reshape(-1, 1, 1) / 1000)


def state(seed: int = 1) -> Tensor:
    """Unit noise (3, 2, 4) in float64."""
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def along(values: Tensor) -> Tensor:
    """One value for each image as (3, 1, 1)."""
    return values.reshape(-1, 1, 1)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each image, (B, 1, 1)."""
    return (a * b).sum((1, 2), keepdim=True)
