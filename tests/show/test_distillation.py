"""Figure 6: students by halving, straightening and matching."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.distillation.methods import dmd, progressive
from fewstep.show import modes
from fewstep.show.data import content
from fewstep.show.distillation import Lengths, distillation
from fewstep.show.draw import picture
from fewstep.show.halving import BEGIN, halving
from fewstep.show.mixture import Mixture, ring
from fewstep.show.modes import counted
from fewstep.show.straightening import straightening, straightness_of
from fewstep.show.students import (
    SCHEDULE,
    Points,
    Setting,
    distance,
    drawn,
    exact_network,
    exact_of,
    noise_of,
    states_at,
    walked,
    weights_file,
)

TWO = Mixture([[-2.0, 0.0], [2.0, 0.0]], [0.6, 0.6], [0.25, 0.75])


@pytest.fixture(scope="module")
def found():
    return distillation(TWO, steps=200, count=3, seed=1)


def test_the_teacher_has_the_velocity_of_the_exact_flow():
    exact = exact_of(TWO, noise_of(6, 0))
    here, now, there = states_at(exact, [0.501, 0.5, 0.499])
    velocity = exact_network(TWO).network(now, torch.full((6,), 0.5, dtype=torch.float64))
    np.testing.assert_allclose(velocity, (here - there) / 0.002, atol=1e-4)


def test_the_error_of_the_teachers_steps_halves_with_their_size():
    noise = noise_of(50, 3)
    ends = exact_of(TWO, noise).at(0.0)
    wrong = [distance(drawn(exact_network(TWO), noise, steps), ends) for steps in (32, 64, 128)]
    assert wrong[0] / wrong[1] == pytest.approx(2, rel=0.15)
    assert wrong[1] / wrong[2] == pytest.approx(2, rel=0.15)


def test_a_path_begins_at_its_noise_and_takes_its_steps():
    noise, teacher = noise_of(4, 0), exact_network(TWO)
    points = walked(teacher, noise, 4)
    assert points.shape == (5, 4, 2)
    np.testing.assert_allclose(points[0], noise, atol=1e-6)
    np.testing.assert_allclose(points[-1], drawn(teacher, noise, 4), atol=1e-6)
    velocity = teacher.network(torch.tensor(points[1]), torch.full((4,), 0.75, dtype=torch.float64))
    np.testing.assert_allclose(points[2], points[1] - 0.25 * velocity.numpy(), atol=1e-5)


def test_each_round_halves_the_steps_and_ends_near_the_first_teacher(found):
    rounds = found.halving.rounds
    assert [each.steps for each in rounds] == [BEGIN, 4, 2, 1]
    assert [each.points.shape for each in rounds] == [(steps + 1, 3, 2) for steps in (8, 4, 2, 1)]
    assert rounds[0].error == 0
    one = rounds[-1]
    assert one.untrained > 1.5  # one step of the exact score ends at the mean of the data
    assert one.error < 0.5 * one.untrained
    assert f"ends {one.error:.2g} from its teacher's 8, the teacher {one.untrained:.2g}" in found.halving.finding


def test_one_step_of_the_exact_score_goes_to_the_mean_of_the_data(found):
    before, after = found.straightening.ways
    np.testing.assert_allclose(before.jumps[1], [[1.0, 0.0]] * 3, atol=1e-5)
    assert np.abs(after.jumps[1] - [1.0, 0.0]).max() > 0.5


def test_reflow_makes_ways_straighter_and_one_step_nearer(found):
    before, after = found.straightening.ways
    assert after.straightness < 0.5 * before.straightness
    assert after.error < 0.5 * before.error
    ratio = before.straightness / after.straightness
    assert found.straightening.finding == f"reflow makes ways {ratio:.3g} times straighter"


def test_a_straight_way_has_no_departure_and_a_detour_has_its_square():
    straight = np.linspace([[0.0, 0.0]], [[4.0, 0.0]], 5)
    assert straightness_of(straight) == 0
    bent = straight.copy()
    bent[2, 0, 1] = 1.0  # slopes of 4 and -4 across in two of four parts, on a way of length 4
    assert straightness_of(bent) == pytest.approx(0.5 * 16 / 16)


def test_shares_are_those_of_the_mixture_for_its_data(found):
    data = found.modes.named(modes.DATA)
    np.testing.assert_allclose(data.shares, [0.25, 0.75], atol=0.04)
    assert data.between < 0.03
    assert data.lost == 0


def test_a_mode_that_is_hardly_drawn_is_lost_and_points_far_from_all_are_between():
    points = torch.tensor([[2.0, 0.1]] * 95 + [[-2.0, 0.0]] * 3 + [[0.0, 0.0]] * 2)
    result = counted("some", points, TWO, 5)
    np.testing.assert_allclose(result.shares, [0.03, 0.95], atol=1e-9)
    assert (result.lost, result.between, result.points.shape) == (1, pytest.approx(0.02), (5, 2))


def test_matching_keeps_what_regression_has_and_the_finding_counts_the_modes_lost(found):
    matching, narrow = found.modes.named(modes.MATCHING), found.modes.named(modes.NARROW)
    assert matching.lost == 0
    assert matching.between < found.modes.named(modes.REGRESSION).between + 0.02
    assert f"it loses 0 of 2 modes, at little noise alone {narrow.lost}" in found.finding


def test_the_finding_says_what_the_figures_are(found):
    before, after = found.modes.named(modes.REGRESSION), found.modes.named(modes.MATCHING)
    assert f"draws {after.between:.1%} between modes, regression {before.between:.1%}; it loses" in found.finding
    assert found.finding.startswith("In 1 step")


def test_the_first_teacher_goes_where_the_products_of_ddim_go():
    """For one Gaussian of variance l a step from k to r multiplies x / alpha by (l + r k) / (l + k^2)."""
    mixture, noise = Mixture([[0.0, 0.0]], [0.5]), noise_of(5, 0)
    factor = 7.0  # the first step, from noise alone, leaves as much of it: sigma / alpha at t = 7 / 8
    for k, r in pairwise([t / (1 - t) for t in np.arange(7, -1, -1) / 8]):
        factor *= (0.25 + r * k) / (0.25 + k**2)
    np.testing.assert_allclose(drawn(exact_network(mixture), noise, 8), factor * noise, atol=1e-5)


@pytest.fixture(scope="module")
def begun():
    setting = Setting.of(TWO, 1)
    return setting, setting.beginning(200)


def test_a_student_that_learns_one_step_of_its_teacher_for_two_is_seen(begun, monkeypatch):
    monkeypatch.setattr(progressive, "aim", lambda teacher, x, levels: teacher.estimate(x, levels[0])[0])
    setting, beginning = begun
    one = halving(setting, beginning, (80, 80, 120), noise_of(500, 7), 1).rounds[-1]
    assert one.error > 0.5 * one.untrained


def test_reflow_of_pairs_that_do_not_belong_together_is_not_straight(begun):
    setting, beginning = begun
    points = setting.points
    assert points.noise is not None
    shuffled = setting._replace(points=Points(points.data, points.noise.roll(1, 0)))
    before, after = straightening(shuffled, beginning, 160, noise_of(500, 7), 1).ways
    assert after.straightness > 0.5 * before.straightness


def test_matching_with_the_other_sign_is_seen(begun, monkeypatch):
    right = dmd.direction
    monkeypatch.setattr(dmd, "direction", lambda x, ours, theirs: -right(x, ours, theirs))
    setting, beginning = begun
    wrong = modes.modes(setting, beginning, (80, 200), noise_of(500, 7), 1)
    assert wrong.named(modes.MATCHING).between > wrong.named(modes.REGRESSION).between + 0.1


def test_document_table_and_weights_hold_what_was_found(found):
    document = json.loads(content(found))
    assert document["training"]["rounds"] == [80, 80, 120]
    columns, rows = found.table()
    table = {tuple(row[:3]): row[3] for row in rows}
    assert columns == ["part", "what", "figure", "value"]
    assert table["progressive", "1 step", "error"] == document["progressive"][-1]["error"]
    assert table["modes", modes.MATCHING, "share 1"] == document["modes"][2]["shares"][1]
    assert list(found.students) == [
        "progressive-4",
        "progressive-2",
        "progressive-1",
        "reflow",
        modes.REGRESSION,
        modes.MATCHING,
        modes.NARROW,
    ]
    assert len(weights_file(found.students)) < 7 * 20_000


def test_the_same_seed_writes_the_same_bytes_and_another_does_not():
    first, again, other = (distillation(ring(2), steps=20, count=2, seed=seed) for seed in (4, 4, 5))
    assert content(first) == content(again) != content(other)
    assert weights_file(first.students) == weights_file(again.students)
    assert picture(first) == picture(again)


def test_the_global_generator_of_torch_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    Setting.of(TWO, 0).beginning(20)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("steps", [19, 100_001, 20.0, True])
def test_other_numbers_of_steps_are_refused(steps):
    with pytest.raises(fs.InvalidInput, match="training steps must be a whole number from 20 to 100,000"):
        Lengths.of(steps)


def test_students_are_of_the_plane():
    with pytest.raises(fs.InvalidInput, match="in 3 dimensions"):
        distillation(Mixture([[0.0, 0.0, 0.0]], [1.0]), steps=20)


def test_the_schedule_is_that_of_a_flow():
    assert (float(SCHEDULE.alpha(0.25)), float(SCHEDULE.sigma(0.25))) == (0.75, 0.25)
