"""Drawings that take turns, and what their seconds say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fewstep.optimization.speed import FEWEST, MOST, Times, race

CPU = torch.device("cpu")


class Clock:
    """Seconds that only drawings spend."""

    def __init__(self) -> None:
        self.now, self.order = 0.0, ""

    def __call__(self) -> float:
        return self.now

    def drawing(self, name: str, seconds: Callable[[int], float]) -> Callable[[int], object]:
        def draw(turn: int) -> None:
            self.order += name
            self.now += seconds(turn)

        return draw


def test_drawings_take_turns_until_it_is_sure_which_is_faster() -> None:
    clock = Clock()
    base = clock.drawing("a", lambda turn: 1.0)
    twice, same = clock.drawing("b", lambda turn: 0.5), clock.drawing("c", lambda turn: 1.0 + 0.01 * (-1) ** turn)
    fast, equal = race(base, [twice, same], CPU, clock=clock)
    assert clock.order[:3] == "abc"  # before the clock runs
    assert clock.order[3:] == "abc" * FEWEST + "ac" * (MOST - FEWEST)
    assert len(fast.own) == FEWEST
    assert fast.ratio.value == fast.ratio.low == 2.0
    assert fast.seconds == 0.5
    assert len(equal.own) == MOST
    assert equal.ratio.low <= 1 <= equal.ratio.high


def test_what_is_far_slower_is_timed_twice_and_what_is_hopeless_the_fewest_times() -> None:
    clock = Clock()
    base = clock.drawing("a", lambda turn: 1.0)
    far, hopeless = race(
        base, [clock.drawing("b", lambda turn: 3.0), clock.drawing("c", lambda turn: 1.2)], CPU, clock=clock
    )
    assert len(far.own) == 2
    assert far.ratio.value == pytest.approx(1 / 3)
    assert len(hopeless.own) == FEWEST


def test_a_load_that_hits_both_does_not_move_the_ratio() -> None:
    clock = Clock()
    load = {turn: 1.0 + 4.0 * (turn % 3 == 0) for turn in range(MOST + 1)}
    base = clock.drawing("a", lambda turn: load[turn])
    (found,) = race(base, [clock.drawing("b", lambda turn: load[turn] / 1.5)], CPU, clock=clock)
    assert found.ratio.value == pytest.approx(1.5)
    assert found.ratio.low == pytest.approx(1.5)


def test_the_time_limit_ends_the_turns_but_not_before_the_fewest() -> None:
    clock = Clock()
    base = clock.drawing("a", lambda turn: 1.0)
    (found,) = race(base, [clock.drawing("b", lambda turn: 1.0)], CPU, end=0.0, clock=clock)
    assert len(found.own) == FEWEST


def test_the_figure_is_the_median_of_neighbours() -> None:
    times = Times((1.0, 2.0, 30.0), (1.0, 1.0, 10.0))
    assert times.ratio.value == 2.0
    assert (times.ratio.low, times.ratio.high) == (1.0, 3.0)
    assert times.ratio.n == 3
