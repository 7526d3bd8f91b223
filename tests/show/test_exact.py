"""The exact solution, against the closed form of one Gaussian."""

import math

import pytest
import torch

import fewstep as fs
from fewstep.show.exact import Exact, angle_of, solve
from fewstep.show.mixture import Mixture
from fewstep.show.strategy import exact_from

ONE = Mixture([[0.7, -0.4]], [0.5])
UNEVEN = Mixture([[1.0, 0.5], [-1.0, 0.2], [0.3, -1.4]], [0.3, 0.6, 0.45], [2.0, 1.0, 3.0])


def spread(angle):
    return math.sqrt((math.cos(angle) * 0.5) ** 2 + math.sin(angle) ** 2)


@pytest.mark.parametrize("kind", ["linear", "cosine", "edm", "flow"])
def test_one_gaussian_is_solved_as_its_closed_form(kind):
    schedule = fs.schedules.from_spec({"kind": kind})
    exact = exact_from(ONE, schedule, 5, seed=3)
    top = exact.angles[0]
    z = (exact.at(top) - math.cos(top) * ONE.means[0]) / spread(top)
    for angle in (1.2, 0.5, 0.05, 0.0):
        expected = math.cos(angle) * ONE.means[0] + spread(angle) * z
        torch.testing.assert_close(exact.at(angle), expected, rtol=0, atol=2e-10)


def test_flow_starts_from_noise_alone():
    exact = exact_from(ONE, fs.schedules.flow(), 2, seed=0)
    assert exact.angles[0] == math.pi / 2 == angle_of(0.0, 1.0)


def test_the_solution_does_not_depend_on_where_it_is_asked_first():
    one, other = (exact_from(UNEVEN, fs.schedules.linear(), 4, seed=1) for _ in range(2))
    for angle in (1.0, 0.3):
        one.at(angle)
    torch.testing.assert_close(one.at(0.0), other.at(0.0), rtol=0, atol=1e-9)


def test_the_way_back_leads_to_the_start():
    exact = exact_from(UNEVEN, fs.schedules.linear(), 4, seed=1)
    top = exact.angles[0]
    back = solve(UNEVEN.velocity, exact.at(0.2), 0.2, top)
    torch.testing.assert_close(back, exact.at(top), rtol=0, atol=1e-8)


@pytest.mark.parametrize("angle", [1.3, -0.1])
def test_an_angle_outside_is_refused(angle):
    with pytest.raises(fs.InvalidInput, match="outside the solution"):
        Exact(ONE, torch.zeros(1, 2), 1.2).at(angle)


def test_an_angle_that_is_no_number_is_refused():
    with pytest.raises(fs.InvalidInput, match="outside the solution"):
        Exact(ONE, torch.zeros(1, 2), 1.2).at(math.nan)
