"""The equation that can be solved on paper: the exact path, the orders of both methods, and the numbers."""

import math

import numpy as np
import pytest

import fewstep as fs
from fewstep.show.draw import picture
from fewstep.show.ode import exact_path, ode, slope


def test_the_exact_path_satisfies_the_equation() -> None:
    starts, t, h = np.array([-2.0, 0.3, 3.1]), 0.8, 1e-5
    x = exact_path(starts, t)
    change = (exact_path(starts, t + h) - exact_path(starts, t - h)) / (2 * h)
    assert change == pytest.approx(slope(x, t), abs=1e-9)
    assert exact_path(starts, 0) == pytest.approx(starts)
    assert float(exact_path(math.pi / 2, 1)) == pytest.approx(2 * math.atan(math.exp(-0.5)))


@pytest.mark.parametrize(("index", "order", "evaluations"), [(0, 1, 1), (1, 2, 2)])
def test_halving_the_step_shows_the_order(index: int, order: int, evaluations: int) -> None:
    wide, narrow = (ode([1.5], step=step).methods[index] for step in (0.02, 0.01))
    assert math.log2(wide.error / narrow.error) == pytest.approx(order, abs=0.1)
    assert (wide.evaluations, narrow.evaluations) == (150 * evaluations, 300 * evaluations)


def test_first_steps_by_hand() -> None:
    euler, heun = ode([1.0], step=1, end=2).methods
    assert euler.x[0] == pytest.approx([1, 1, 1 - math.sin(1)])  # the slope at t = 0 is 0
    assert heun.x[0, 1] == pytest.approx(1 - math.sin(1) / 2)


def test_the_last_step_is_shorter_where_the_end_is_no_multiple() -> None:
    assert ode([1.0], step=0.4, end=1).step_times == pytest.approx([0, 0.4, 0.8, 1])
    assert len(ode([1.0], step=0.1, end=0.3).step_times) == 4


def test_the_finding_says_how_much_nearer_heun_is() -> None:
    found = ode([1.5], step=0.1)
    ratio = found.methods[0].error / found.methods[1].error
    assert (
        found.finding == f"With a step of 0.1, Heun ends {ratio:.2g} times nearer than Euler, in twice the evaluations"
    )


def test_the_numbers_and_the_figure_are_written() -> None:
    found = ode([1.0, 2.0], step=0.5, end=1)
    columns, rows = found.table()
    assert columns == ["method", "start", "t", "x", "exact"]
    assert len(rows) == 2 * 2 * 3
    assert rows[2][4] == pytest.approx(float(exact_path(1.0, 1.0)))
    assert found.document()["methods"][1]["method"] == "heun"
    assert picture(found).startswith(b"<?xml")
    assert picture(found) == picture(found)


@pytest.mark.parametrize("given", [{"step": 0}, {"step": math.nan}, {"end": 1e9}, {"step": 1e-9}, {"step": 4.0}])
def test_steps_that_cannot_be_taken_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(fs.InvalidInput, match=r"step|end"):
        ode([1.0], **given)
