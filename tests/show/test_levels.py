"""Figure 3: schedules and grids."""

import json
import math

import numpy as np
import pytest

import fewstep as fs
from fewstep.show.levels import SCHEDULES, levels

KINDS = {name: fs.schedules.KINDS[name]() for name in SCHEDULES}


def found(grids=tuple(fs.GRIDS), on="linear", steps=10):
    return levels(KINDS, grids, grid_schedule=KINDS[on], steps=steps)


def test_the_curves_of_flow_and_edm_are_their_closed_forms():
    flow, edm = found().curves["flow"], found().curves["edm"]
    np.testing.assert_allclose(flow.alpha, 1 - flow.share, atol=1e-15)
    inside = slice(1, -1)
    expected = np.log(1 - flow.time[inside]) - np.log(flow.time[inside])
    np.testing.assert_allclose(flow.lam[inside], expected, rtol=1e-9, atol=1e-9)
    assert (flow.lam[0], flow.lam[-1]) == (math.inf, -math.inf)
    np.testing.assert_allclose(edm.sigma, 80 * edm.share, rtol=1e-12)


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
def test_beta_schedules_keep_the_variance_and_fall_in_lambda(name):
    curves = found().curves[name]
    np.testing.assert_allclose(curves.alpha**2 + curves.sigma**2, 1, atol=1e-12)
    assert np.all(np.diff(curves.lam) < 0)


def test_every_grid_goes_down_in_time_and_up_in_lambda():
    result = found()
    assert list(result.times) == list(fs.GRIDS)
    for name, times in result.times.items():
        assert np.all(np.diff(times) < 0)
        assert len(result.grids[name]) == 10
        assert np.all(np.diff(result.grids[name]) > 0)


def test_the_exponential_grid_is_even_in_lambda():
    widths = np.diff(found(["exponential"]).grids["exponential"])
    np.testing.assert_allclose(widths, widths[0], rtol=1e-9)


def test_the_finding_counts_the_steps_where_noise_outweighs_data():
    result = found(["exponential", "polynomial"])
    assert result.finding == "polynomial takes 9 of 10 steps where noise outweighs data, exponential 5"
    assert found(["karras"]).finding == "What a time means differs from schedule to schedule"


def test_infinite_values_are_null_in_the_document_and_empty_in_the_table():
    result = found(["trailing"], on="flow", steps=4)
    document = json.loads(json.dumps(result.document(), allow_nan=False))
    assert document["grids"]["trailing"] == {
        "time": [1.0, 0.75, 0.5, 0.25, 0.0],
        "lambda": [None, pytest.approx(-math.log(3)), 0.0, pytest.approx(math.log(3))],
    }
    columns, rows = result.table()
    grid = [row for row in rows if row[0] == "grid"]
    assert columns == ["kind", "name", "share", "time", "alpha", "sigma", "lambda"]
    assert grid[0] == ["grid", "trailing", None, 1.0, 0.0, 1.0, None]


def test_an_unknown_grid_and_too_many_steps_are_refused():
    with pytest.raises(fs.InvalidInput, match="did you mean 'karras'"):
        found(["karas"])
    with pytest.raises(fs.InvalidInput, match="does not decrease"):
        found(["trailing"], steps=1001)
