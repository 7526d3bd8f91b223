"""Errors and figures with intervals, paired over the same images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fewstep.measure import Bootstrap, Figure
from literature.claim import Interval

LEAST, RESOLVED = 1e-24, 3.0
"""Mean squared error of an image that counts as exact; and times the error of the reference that one is resolved."""


def interval(value: float, replicates: Tensor | Sequence[float], confidence: float = 0.95) -> Interval:
    """A value with the middle `confidence` of its replicates."""
    drawn = torch.as_tensor(replicates, dtype=torch.float64)
    tail = (1 - confidence) / 2
    low, high = torch.quantile(drawn, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(float(value), low, high)


def typical(errors: Tensor) -> Interval:
    """The error of the typical image from mean squared ones (B,): the geometric mean of their roots."""
    logs = errors.clamp_min(LEAST).log() / 2
    return interval(float(logs.mean().exp()), (Bootstrap().weights(len(logs)) @ logs).exp())


def ratio(above: Tensor, below: Tensor, reference: float = 0.0) -> Interval:
    """The typical error of `above` (B,) over that of `below` (B,), the same images of both.

    Errors below `RESOLVED` times that of the reference itself are raised to it. So a ratio never claims more than the
    converged solution can tell: two errors that it does not resolve have the ratio 1.
    """
    least = max(LEAST, (RESOLVED * reference) ** 2)
    logs = (above.clamp_min(least).log() - below.clamp_min(least).log()) / 2
    return interval(float(logs.mean().exp()), (Bootstrap().weights(len(logs)) @ logs).exp())


def mean(scores: Tensor) -> Interval:
    """The mean of a score of each image, (B,)."""
    values = scores.double()
    return interval(float(values.mean()), Bootstrap().weights(len(values)) @ values)


def of(figure: Figure) -> Interval:
    """A figure of `fewstep.measure` as an interval."""
    return Interval(figure.value, figure.low, figure.high)


def quotient(above: Figure, below: Figure, confidence: float = 0.95) -> Interval:
    """One figure over another, by their common bootstrap."""
    replicates = torch.tensor(above.replicates) / torch.tensor(below.replicates)
    return interval(above.value / below.value, replicates, confidence)


def averaged(figures: Sequence[Figure]) -> Interval:
    """The mean of figures of separate sets of images, such as classes."""
    replicates = torch.tensor([one.replicates for one in figures]).mean(dim=0)
    return interval(sum(one.value for one in figures) / len(figures), replicates)


def averaged_quotient(above: Sequence[Figure], below: Sequence[Figure]) -> Interval:
    """The mean of some figures over that of others of the same sets, by their common bootstrap."""
    sums = [torch.tensor([one.replicates for one in side]).sum(dim=0) for side in (above, below)]
    values = [sum(one.value for one in side) for side in (above, below)]
    return interval(values[0] / values[1], sums[0] / sums[1])
