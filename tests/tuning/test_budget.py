"""Milliseconds to evaluations, by a clock that the test turns."""

import pytest

import fewstep as fs
from fewstep.tuning.budget import fitting_nfe


class Machine:
    """Takes so many seconds a run, and so many for each evaluation."""

    def __init__(self, fixed, each):
        self.fixed, self.each, self.now = fixed, each, 0.0

    def run(self, nfe):
        self.now += self.fixed + self.each(nfe) if callable(self.each) else self.fixed + self.each * nfe

    def fitting(self, ms, images=4):
        return fitting_nfe(self.run, images, ms, clock=lambda: self.now)


@pytest.mark.parametrize(("ms", "nfe"), [(30.0, 10), (32.4, 10), (10.1, 2), (1e6, 32)])
def test_the_most_evaluations_that_fit_are_found(ms, nfe):
    found = Machine(0.02, 0.01).fitting(ms)  # 4 images: 5 ms and 2.5 ms for each evaluation
    assert found.nfe == nfe
    assert found.ms == pytest.approx(5 + 2.5 * nfe)


def test_where_evaluations_become_dearer_fewer_are_taken():
    dearer = Machine(0.0, lambda nfe: 0.01 * nfe if nfe <= 6 else 0.02 * nfe)
    found = dearer.fitting(20.0)  # a straight line would say 8, which take 40 ms
    assert found == (6, pytest.approx(15.0))


def test_a_budget_that_nothing_meets_says_what_the_least_is():
    with pytest.raises(fs.InvalidInput, match="the least, 2 evaluations, takes 10 ms"):
        Machine(0.02, 0.01).fitting(9.0)
    with pytest.raises(fs.InvalidInput, match="above 0"):
        Machine(0.02, 0.01).fitting(0.0)
