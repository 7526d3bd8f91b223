"""The converged solution: found on a few images, solved for all, and kept in a file that says whose it is."""

import pytest
import torch

import fewstep as fs
from fewstep.measure.converged import Converged, Flow, Goal, converge, find_plan

from .flows import gaussian, noise, plan, solution

SCHEDULE = fs.schedules.linear()
Z = noise(20, 5)


def draw(given, numbers):
    return fs.sample(given, gaussian(SCHEDULE), noise=Z[list(numbers)])


FLOW = Flow(draw, SCHEDULE, "gaussian")


def rms(x, y):
    return float((x - y).square().mean().sqrt())


def test_the_plan_is_found_on_a_few_images_and_solves_all_in_batches():
    told = []
    known = converge(FLOW, range(20), Goal(1e-3), pilots=4, batch=8, model="m", watch=lambda *step: told.append(step))
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert (len(known), len(known.error), known.noise) == (20, 4, None)
    assert rms(known.solution, solution(SCHEDULE, Z)) < known.bound < 1e-3
    whole = converge(FLOW, range(20), Goal(1e-3), model="m")
    torch.testing.assert_close(whole.solution, known.solution)
    assert (whole.schedule, whole.solver["steps"]) == (SCHEDULE.fingerprint, known.solver["steps"])


def test_a_number_of_steps_takes_the_place_of_a_tolerance():
    known = converge(FLOW, range(20), Goal(steps=100))
    half, full = (draw(plan("deis-3", n, SCHEDULE, grid="quadratic"), range(20)) for n in (50, 100))
    assert torch.equal(known.solution, full)
    assert known.bound == pytest.approx(rms(half, full))
    assert known.solver == {"sampler": "deis-3", "grid": "quadratic", "steps": 100, "rows": 150 * 20}
    with pytest.raises(fs.InvalidInput, match="so give at least 2, got 1"):
        Goal(steps=1)


def test_near_enough_is_a_share_of_the_error_of_the_plan_that_is_judged():
    rough, fine = plan("ddim", 4, SCHEDULE), plan("unipc-3", 60, SCHEDULE, grid="exponential")
    found = [find_plan(FLOW, range(20), Goal(0.03, judged=judged)) for judged in (rough, fine)]
    assert len(found[0].plan.rows) < len(found[1].plan.rows)
    for one, judged in zip(found, (rough, fine), strict=True):
        assert one.error <= 0.03 * rms(draw(judged, range(20)), one.states)


def test_a_file_of_other_images_is_refused(tmp_path):
    known = converge(FLOW, range(20), Goal(1e-2), pilots=4, model="ours")
    known.save(tmp_path / "known.safetensors")
    again = Converged.load(tmp_path / "known.safetensors", "ours")
    assert again.digest == known.digest
    assert torch.equal(again.solution, known.solution)
    with pytest.raises(fs.InvalidInput, match="was solved for 'ours', this is 'theirs': make it again"):
        Converged.load(tmp_path / "known.safetensors", "theirs")
    with pytest.raises(fs.InvalidInput, match=r"does not know its noise: make it with Converged\.solve"):
        fs.measure.trajectory_error(plan("ddim", 5, SCHEDULE), gaussian(SCHEDULE), again)


def test_a_model_without_finite_images_is_refused():
    lost = Flow(lambda given, numbers: torch.full((len(numbers), 5), torch.nan), SCHEDULE, "lost")
    with pytest.raises(fs.InvalidInput, match="lost gives no finite images in 384 steps: try `fewstep doctor`"):
        converge(lost, range(3), Goal(1e-3))
