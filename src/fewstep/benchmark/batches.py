"""One batch of one plan: the states, the pictures, and by the clock how long both took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.measure.counting import counted
from fewstep.measure.latency import median_of, peak_memory, synchronize
from fewstep.run.eager import sample
from fewstep.tuning import Problem
from fewstep.tuning.certificate import ConfidenceInterval

REPEATS = 3
"""Fewest timed runs of a plan."""


class Drawn(NamedTuple):
    """A batch: states (B, ..), pictures (B, C, H, W), evaluations of networks that it took, and seconds."""

    states: Tensor
    pictures: Tensor
    evaluations: int
    seconds: float


def draw(problem: Problem, plan: Plan, part: Sequence[int], decode: Callable[[Tensor], Tensor]) -> Drawn:
    """Draw the images `part`; those that are lost are NaN or infinite.

    The clock runs from the noise to the pictures, and waits for the device.
    """
    own, count = counted(problem.following(plan, part))
    noise, device = problem.noise(part), torch.device(problem.device)
    synchronize(device)
    began = time.perf_counter()
    states = sample(plan, own, noise=noise, seed=list(part), check=False)
    pictures = decode(states)
    synchronize(device)
    return Drawn(states, pictures, count.images, time.perf_counter() - began)


def seconds_of(runs: Sequence[float]) -> ConfidenceInterval:
    """The median of the seconds of some runs, with its interval."""
    figure = median_of(runs, "an image")
    return ConfidenceInterval(figure.value, figure.low, figure.high)


def draw_with_peak(run: Callable[[], Drawn], device: torch.device) -> tuple[Drawn, int | None]:
    """A drawing, and the most bytes that it held."""
    found: list[Drawn] = []
    peak, _ = peak_memory(lambda: found.append(run()), device)
    return found[0], peak
