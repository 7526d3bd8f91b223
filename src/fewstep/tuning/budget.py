"""From milliseconds an image to the network evaluations that fit, by measuring this model on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from fewstep.core.errors import InvalidInput
from fewstep.measure.latency import cost
from fewstep.tuning.tuning import LEAST, MOST

PROBES = (2, 6)
"""Evaluations of the two plans whose difference tells what a row costs, and what comes on top of all rows."""
REPEATS = 3


class Fitting(NamedTuple):
    """The most evaluations that fit, and the milliseconds an image that they were measured to take."""

    nfe: int
    ms: float


def fitting_nfe(
    run: Callable[[int], Any],
    images: int,
    ms: float,
    *,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> Fitting:
    """The largest number of evaluations from 2 to 32 whose images take at most `ms` milliseconds each.

    Args:
        run: draws `images` images in so many evaluations, as they are to be drawn: in batches, with guidance, decoded.

    Raises:
        InvalidInput: where not even 2 evaluations fit; it says what they take.
    """
    if not ms > 0 or images < 1:
        raise InvalidInput(f"the time of an image is above 0 and images are at least 1, got {ms!r} ms and {images!r}")
    known: dict[int, float] = {}

    def taken(nfe: int) -> float:
        if nfe not in known:
            seconds = cost(lambda: run(nfe), device=device, repeats=REPEATS, warmup=1, clock=clock).seconds.value
            known[nfe] = 1000 * seconds / images
        return known[nfe]

    low, high = PROBES
    row = max((taken(high) - taken(low)) / (high - low), 1e-9)
    nfe = int(min(MOST, max(LEAST, low + (ms - taken(low)) / row)))
    while nfe > LEAST and taken(nfe) > ms:
        nfe -= 1
    if taken(nfe) > ms:
        raise InvalidInput(
            f"no plan meets {ms:g} ms an image here: the least, {LEAST} evaluations, takes {taken(LEAST):.3g} ms; give "
            "more, a larger batch, or guidance 1, which halves the evaluations"
        )
    return Fitting(nfe, taken(nfe))
