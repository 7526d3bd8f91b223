"""Figure 1: paths."""

import json
import math

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.run.noise import START, unit_noise
from fewstep.show.mixture import Mixture, ring
from fewstep.show.strategy import Strategy
from fewstep.show.trajectories import trajectories

SCHEDULE = fs.schedules.linear()


def paths(*strategies, nfe=8, count=3, seed=0, schedule=SCHEDULE):
    return trajectories(ring(3), schedule, strategies, nfe=nfe, count=count, seed=seed)


def test_all_paths_start_from_the_same_noise_and_end_where_sample_ends():
    found = paths(Strategy("dpmpp-2m"), Strategy("heun", "trailing"))
    noise = unit_noise([0, 1, 2], START, torch.empty(3, 2, dtype=torch.float64))
    sigma = float(SCHEDULE.sigma(999))
    for path in found.paths:
        np.testing.assert_allclose(path.points[0], noise.numpy() * sigma, atol=1e-12)
        plan = path.strategy.within(SCHEDULE, 8)
        assert plan is not None
        assert path.nfe == plan.nfe() <= 8
        assert path.points.shape == (plan.steps + 1, 3, 2)
        last = fs.sample(plan, found.mixture, noise=noise)
        np.testing.assert_allclose(path.points[-1], last.numpy(), atol=1e-12)


def test_two_stage_methods_take_as_many_steps_as_fit():
    [heun] = paths(Strategy("heun", "karras"), nfe=9).paths
    assert (heun.nfe, len(heun.points) - 1) == (9, 5)  # the last step is Euler's: one evaluation
    [heun] = paths(Strategy("heun", "karras"), nfe=8).paths
    assert heun.nfe == 7


def test_ddim_and_euler_take_the_same_path():
    ddim, euler = paths(Strategy("ddim"), Strategy("euler")).paths
    np.testing.assert_allclose(ddim.points, euler.points, atol=1e-12)


def test_the_error_is_the_distance_of_the_ends():
    found = paths(Strategy("ddim"))
    off = found.paths[0].points[-1] - found.exact[-1]
    assert found.paths[0].error == pytest.approx(math.sqrt((off**2).sum(axis=1).mean()), rel=1e-9)
    assert paths(Strategy("ddim"), nfe=200).paths[0].error < found.paths[0].error / 5


def test_the_exact_paths_are_those_of_every_schedule():
    linear, edm = paths(Strategy("ddim")), paths(Strategy("ddim"), schedule=fs.schedules.edm(sigma_max=148.0))
    assert np.abs(linear.exact[-1] - edm.exact[-1]).max() < 0.01  # they start at sigma / alpha 148.4 and 148


def test_a_sampler_that_draws_noise_has_no_error_and_its_own_noise_for_each_seed():
    first, again, other = (paths(Strategy("euler-a"), seed=s) for s in (4, 4, 5))
    assert first.paths[0].error is None
    np.testing.assert_array_equal(first.paths[0].points, again.paths[0].points)
    assert np.abs(first.paths[0].points[-1] - other.paths[0].points[-1]).max() > 0.1
    assert first.finding == "The same noise, at most 8 evaluations each"


def test_the_finding_names_the_best_and_the_worst():
    found = paths(Strategy("ddim"), Strategy("unipc-3"), nfe=30)
    assert found.paths[1].error < found.paths[0].error
    times = found.paths[0].error / found.paths[1].error
    assert f"unipc-3 ends {times:.2g} times nearer to the exact solution than ddim" in found.finding


def test_document_and_table_hold_the_same_numbers():
    found = paths(Strategy("ddim", "karras", {"eta": 0.0}), count=2)
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    [path] = document["paths"]
    assert (path["sampler"], path["grid"], path["nfe"]) == ("ddim:eta=0.0", "karras", 8)
    columns, rows = found.table()
    last = [row for row in rows if row[0] == "ddim:eta=0.0" and row[1] == 1][-1]
    assert dict(zip(columns, last, strict=True))["point"] == 8
    assert last[3:] == path["points"][-1][1]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Strategy("dimm"), "did you mean 'ddim'"),
        (Strategy("ddim", "karas"), "did you mean 'karras'"),
        (Strategy("ddim", options={"eat": 1.0}), "did you mean 'eta'"),
        (Strategy("ddim", options={"steps": 3}), "unknown option of ddim 'steps'"),
        (Strategy("euler", options={"eta": 1.0}), "euler takes no options, got 'eta'"),
    ],
)
def test_what_cannot_run_is_refused(strategy, message):
    with pytest.raises(fs.InvalidInput, match=message):
        trajectories(ring(3), fs.schedules.edm(), [strategy], nfe=2, count=1)


def test_paths_are_drawn_in_the_plane_only():
    with pytest.raises(fs.InvalidInput, match="in 3 dimensions"):
        trajectories(Mixture([[0.0, 0.0, 0.0]], [1.0]), SCHEDULE, [Strategy("ddim")])
