"""Averages with a power function as their profile."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewstep import InvalidInput
from fewstep.training import Averages, Snapshot, combination
from fewstep.training.average import exponent


@pytest.mark.parametrize(("width", "power"), [(0.05, 16.97), (0.10, 6.94)])
def test_exponents_are_those_of_the_paper(width: float, power: float) -> None:
    assert exponent(width) == pytest.approx(power, abs=0.005)


@pytest.mark.parametrize("width", [0.0, 0.3, -1.0])
def test_a_width_that_no_profile_has_is_refused(width: float) -> None:
    with pytest.raises(InvalidInput, match="width"):
        exponent(width)


def average_of(values: list[float], width: float) -> float:
    weights = {"w": torch.zeros(1, dtype=torch.float64)}
    averages = Averages(weights, (width,))
    for value in values:
        weights["w"].fill_(value)
        averages.update(weights)
    return float(averages.by_width[width]["w"])


def test_steps_count_as_a_power_of_their_number() -> None:
    """The discrete recursion gives step i the weight i^g, but for terms of order 1 / n."""
    steps, width = 400, 0.10
    values = torch.randn(steps, generator=torch.Generator().manual_seed(0)).tolist()
    profile = np.arange(1, steps + 1) ** exponent(width)
    assert average_of(values, width) == pytest.approx(np.dot(profile, values) / profile.sum(), abs=2e-3)


def test_the_first_step_replaces_what_was_there_before() -> None:
    assert average_of([3.0], 0.05) == 3.0


def test_another_width_is_made_of_two_that_were_kept() -> None:
    """From snapshots of widths 5% and 10%, an average of 7% that was never kept, to 1% of the values' spread."""
    steps = 512
    values = np.sin(np.arange(steps) / 40.0).tolist()
    kept = [Snapshot(step, width) for step in (128, 256, 384, 512) for width in (0.05, 0.10)]
    sums = combination(kept, Snapshot(steps, 0.07))
    made = sum(c * average_of(values[: one.step], one.width) for c, one in zip(sums, kept, strict=True))
    assert sums.sum() == pytest.approx(1.0)
    assert made == pytest.approx(average_of(values, 0.07), abs=0.01)


def test_an_average_later_than_all_that_are_kept_is_refused() -> None:
    with pytest.raises(InvalidInput, match="step 20"):
        combination([Snapshot(10, 0.05)], Snapshot(20, 0.05))
