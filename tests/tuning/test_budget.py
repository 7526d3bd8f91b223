"""From evaluations and milliseconds to rows, these by a clock that the test turns."""

import pytest
import torch

import fewstep as fs
from fewstep.tuning import Problem
from fewstep.tuning.budget import budget_of, fitting

from .conditional import problem


class Machine:
    """Takes so many seconds a run, and so many for each row."""

    def __init__(self, fixed, each):
        self.fixed, self.each, self.now = fixed, each, 0.0

    def run(self, rows):
        self.now += self.fixed + self.each(rows) if callable(self.each) else self.fixed + self.each * rows

    def fitting(self, ms, images=4):
        return fitting(self.run, images, ms, clock=lambda: self.now)


@pytest.mark.parametrize(("ms", "rows"), [(30.0, 10), (32.4, 10), (10.1, 2), (1e6, 32)])
def test_the_most_rows_that_fit_are_found(ms, rows):
    found = Machine(0.02, 0.01).fitting(ms)  # 4 images: 5 ms and 2.5 ms for each row
    assert found == (rows, pytest.approx(5 + 2.5 * rows))


def test_where_rows_become_dearer_fewer_are_taken():
    dearer = Machine(0.0, lambda rows: 0.01 * rows if rows <= 6 else 0.02 * rows)
    found = dearer.fitting(20.0)  # a straight line would say 8, which take 40 ms
    assert found == (6, pytest.approx(15.0))


def test_a_budget_that_nothing_meets_says_what_the_least_is():
    with pytest.raises(fs.InvalidInput, match="the least, 2 rows, takes 10 ms"):
        Machine(0.02, 0.01).fitting(9.0)
    with pytest.raises(fs.InvalidInput, match="above 0"):
        Machine(0.02, 0.01).fitting(0.0)


def test_evaluations_become_rows_by_what_a_row_of_this_model_costs():
    guided = problem(3.0)
    assert budget_of(guided, nfe=12) == (6, 12, None)
    assert budget_of(guided, rows=6) == (6, 12, None)
    assert budget_of(problem(1.0), nfe=12) == (12, 12, None)
    given = guided.denoiser([0]).network, {"few": torch.ones(1)}, {"few": torch.zeros(1)}
    apg = fs.Guided(*given, 3.0, method=fs.APG(momentum=0.0))
    assert budget_of(Problem.of(apg, (6,)), nfe=12).rows == 6
    with pytest.raises(
        fs.InvalidInput, match=r"a row of model costs 2 evaluations, and 13 is not a multiple.*12 or 14"
    ):
        budget_of(guided, nfe=13)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of rows, nfe and ms, got none"),
        ({"rows": 4, "nfe": 8}, "got rows and nfe"),
        ({"nfe": 66}, "rows must be a whole number from 2 to 32, got 33"),
        ({"nfe": 2.5}, "nfe must be a whole number of at least 2, got 2.5"),
    ],
)
def test_a_budget_that_cannot_be_says_why(given, message):
    with pytest.raises(fs.InvalidInput, match=message):
        budget_of(problem(3.0), **given)
