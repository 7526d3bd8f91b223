"""Guidance weights that follow the level or the row, and negatives that cannot act."""

import math

import pytest
import torch

import fewstep as fs
from fewstep.denoise.base import Level
from proof.conditional import EMPTY, LABELS, SHAPE, Counting, state
from proof.problems import SCHEDULES

LINEAR, EDM = SCHEDULES["linear"], SCHEDULES["edm"]
NETWORK = fs.Network(Counting(), LINEAR, "epsilon")


def guided(scale, schedule=LINEAR, network=None, **options):
    network = fs.Network(network or Counting(), schedule, "epsilon")
    return fs.Guided(network, {"label": LABELS}, {"label": EMPTY}, scale, **options)


def weights_at(scale, *ratios, rows=None):
    levels = Level(torch.tensor(ratios), 1.0, 1.0, [(r, 1.0, r) for r in ratios], rows)
    return [guided(scale).need(i, moment).weight for i, moment in enumerate(levels.moments)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (fs.GuidanceSchedule.linear(1.0, 5.0), [5.0, 4.0, 3.0, 2.0]),
        (fs.GuidanceSchedule.linear(5.0, 1.0), [1.0, 2.0, 3.0, 4.0]),
        (fs.GuidanceSchedule.cosine(1.0, 5.0), [5.0, 3 + math.sqrt(2), 3.0, 3 - math.sqrt(2)]),
        (fs.GuidanceSchedule.table({1.0: 2.0, 0.5: 7.0}), [7.0, 7.0, 2.0, 1.0]),
        (fs.GuidanceSchedule.table({math.inf: 4.0, 1 / 3: 3.0}), [3.0, 3.0, 4.0, 4.0]),
        (lambda ratio: 2 * ratio, [0.0, 2 / 3, 2.0, 6.0]),
    ],
)
def test_a_schedule_is_its_formula_of_the_noise_level(schedule, expected):
    assert weights_at(schedule, 1e-12, 1 / 3, 1.0, 3.0) == pytest.approx(expected, abs=1e-9)


def test_where_alpha_is_0_a_schedule_has_its_noisy_end():
    [pure] = Level(torch.ones(1), 0.0, 1.0, [(1.0, 0.0, 1.0)]).moments
    for schedule in (fs.GuidanceSchedule.linear(2.0, 5.0), fs.GuidanceSchedule.cosine(2.0, 5.0)):
        assert guided(schedule).need(0, pure).weight == pytest.approx(2.0)
    assert fs.GuidanceSchedule.table({math.inf: 6.0}).at(pure) == 6.0
    with pytest.raises(fs.InvalidInput, match="gives inf at sigma / alpha = inf"):
        guided(lambda ratio: ratio).need(0, pure)


@pytest.mark.parametrize("name", ["ddim", "heun", "unipc-3", "restart", "sde-dpmpp-2m"])
def test_weights_by_row_are_paid_for_where_they_are_not_1(name):
    plan, network = fs.compile(name, schedule=LINEAR, steps=6), Counting()
    weights = [1.0 if i % 3 else 2.0 + i for i in range(len(plan.rows))]
    fs.sample(plan, guided(fs.GuidanceSchedule.rows(weights), network=network), shape=SHAPE)
    assert network.calls == [3 if w == 1 else 6 for w in weights]


@pytest.mark.parametrize("name", ["ddim", "heun", "dpmpp-2m"])
def test_weights_by_row_are_those_of_the_level_that_the_row_has(name):
    plan = fs.compile(name, schedule=LINEAR, steps=6)
    schedule = fs.GuidanceSchedule.linear(1.5, 6.0)
    table = schedule.over(plan)
    by_level, by_row = (fs.sample(plan, guided(s), noise=state()) for s in (schedule, fs.GuidanceSchedule.rows(table)))
    assert torch.equal(by_level, by_row)
    assert not torch.allclose(by_level, fs.sample(plan, guided(3.0), noise=state()), atol=1e-2)


def test_one_weight_in_all_rows_is_that_weight():
    plan = fs.compile("heun", schedule=LINEAR, steps=4)
    constant = fs.sample(plan, guided(4.0), shape=SHAPE)
    for same in (
        fs.GuidanceSchedule.rows([4.0] * len(plan.rows)),
        lambda ratio: 4,
        fs.GuidanceSchedule.linear(4.0, 4.0),
    ):
        assert torch.equal(constant, fs.sample(plan, guided(same), shape=SHAPE))


def test_a_schedule_of_ones_is_bitwise_the_conditional_model_and_said_to_be_idle():
    plan, network = fs.compile("dpmpp-2m", schedule=LINEAR, steps=5), Counting()
    with pytest.warns(UserWarning, match=r"act in no row of this plan: sigma / alpha goes from 157 to 0.719"):
        got = fs.sample(plan, guided(fs.GuidanceSchedule.rows([1.0] * 5), network=network), shape=SHAPE)
    conditional = fs.Network(Counting(), LINEAR, "epsilon", condition={"label": LABELS})
    assert torch.equal(got, fs.sample(plan, conditional, shape=SHAPE))
    assert network.calls == [3] * 5


def test_each_image_may_have_a_schedule_or_a_number_of_its_own():
    plan = fs.compile("ddim", schedule=LINEAR, steps=5)
    schedules = [3.0, fs.GuidanceSchedule.linear(1.0, 9.0), fs.GuidanceSchedule.rows([1.0, 1.0, 5.0, 1.0, 2.0])]
    network = Counting()
    got = fs.sample(plan, guided(schedules, network=network), noise=state())
    assert network.calls == [5, 5, 6, 5, 6]
    for i, schedule in enumerate(schedules):
        assert torch.equal(got[i], fs.sample(plan, guided(schedule), noise=state())[i])


def test_a_table_of_the_wrong_length_and_a_call_without_a_plan_are_refused():
    denoiser = guided(fs.GuidanceSchedule.rows([2.0, 3.0]))
    for run in (fs.sample, lambda plan, d, shape: fs.Graph(plan, d, shape, mode="eager")()):
        with pytest.raises(fs.InvalidInput, match="2 guidance weights were given by row, this plan of ddim has 5 rows"):
            run(fs.compile("ddim", schedule=LINEAR, steps=5), denoiser, shape=SHAPE)
    with pytest.raises(fs.InvalidInput, match="no plan is run here"):
        denoiser(state(), 300.0)
    with pytest.raises(fs.InvalidInput, match="counts or remembers the rows"):
        fs.sample_adaptive(denoiser, shape=SHAPE)
    with pytest.raises(fs.InvalidInput, match="counts or remembers the rows"):
        fs.sample_adaptive(fs.clip(denoiser), shape=SHAPE)


def test_a_schedule_of_the_level_runs_with_adaptive_steps_and_on_another_schedule():
    scheduled = guided(fs.GuidanceSchedule.linear(1.0, 3.0))
    assert bool(fs.sample_adaptive(scheduled, shape=SHAPE, rtol=0.5).sample.isfinite().all())
    x, sigma = state(), 1.7
    t = float(LINEAR.time_of_lambda(-math.log(sigma)))
    here = guided(1 + 2 * (1 - sigma / (1 + sigma)))(x * float(LINEAR.alpha(t)), t)
    torch.testing.assert_close(fs.OnSchedule(scheduled, EDM)(x, sigma), here, rtol=0, atol=1e-10)


def test_weights_by_row_reach_a_denoiser_on_another_schedule_and_under_a_clip():
    plan, network = fs.compile("euler", schedule=EDM, steps=4), Counting()
    rows = guided(fs.GuidanceSchedule.rows([1.0, 2.0, 2.0, 1.0]), network=network)
    fs.sample(plan, fs.clip(fs.OnSchedule(rows, EDM)), shape=SHAPE)
    assert network.calls == [3, 6, 6, 3]


def test_images_of_slots_have_the_weights_of_their_own_rows():
    ddim, heun = (fs.compile(name, schedule=LINEAR, steps=3) for name in ("ddim", "heun"))
    network = fs.Network(Counting(), LINEAR, "epsilon")
    slots = fs.Slots(network, SHAPE[1:], 2)
    label, empty = {"label": torch.tensor(2.0)}, {"label": torch.tensor(0.0)}
    given = {ddim: [2.0, 1.0, 4.0], heun: [1.0, 3.0, 1.0, 2.0, 5.0]}
    done = {}
    tickets = {
        slots.admit(p, fs.Request(seed=7, condition=label, negative=empty, scale=fs.GuidanceSchedule.rows(w))): p
        for p, w in given.items()
    }
    while len(done) < 2:
        done |= {tickets[f.ticket]: f.sample for f in slots.step()}
    for plan, w in given.items():
        alone = fs.Guided(
            fs.Network(Counting(), LINEAR, "epsilon"), {"label": torch.tensor([2.0])}, {"label": EMPTY},
            fs.GuidanceSchedule.rows(w),
        )  # fmt: skip
        expected = fs.sample(plan, alone, shape=(1, *SHAPE[1:]), seed=7)[0]
        torch.testing.assert_close(done[plan], expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(fs.InvalidInput, match="2 guidance weights were given by row, this plan of ddim has 3 rows"):
        slots.admit(ddim, fs.Request(condition=label, negative=empty, scale=fs.GuidanceSchedule.rows([1.0, 2.0])))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fs.GuidanceSchedule.linear(math.nan, 1.0), "the ends of a guidance schedule are finite"),
        (lambda: fs.GuidanceSchedule.cosine(1.0, math.inf), "the ends of a guidance schedule are finite"),
        (lambda: fs.GuidanceSchedule.rows([]), "weights by row are finite numbers"),
        (lambda: fs.GuidanceSchedule.rows([1.0, math.nan]), "weights by row are finite numbers"),
        (lambda: fs.GuidanceSchedule.rows("12"), "weights by row are finite numbers"),
        (lambda: fs.GuidanceSchedule.table({}), "a guidance table maps"),
        (lambda: fs.GuidanceSchedule.table({0.0: 2.0}), "a guidance table maps"),
        (lambda: fs.GuidanceSchedule.table({math.nan: 2.0}), "a guidance table maps"),
        (lambda: fs.GuidanceSchedule.table([1.0, 2.0]), "a guidance table maps"),
        (lambda: fs.GuidanceSchedule.table({1.0: math.nan}), "the weights of a guidance table are finite"),
        (lambda: guided("3"), "a finite number or a function"),
        (lambda: guided([3.0, None]), "a finite number or a function"),
        (lambda: guided(lambda ratio: math.nan)(state(), 300.0), "gives nan at sigma / alpha"),
        (lambda: guided(lambda: 1.0)(state(), 300.0), "has no weight at sigma / alpha"),
    ],
)
def test_weights_that_are_none_are_refused(make, message):
    with pytest.raises(fs.InvalidInput, match=message):
        make()


def test_a_negative_prompt_that_cannot_act_is_refused_with_the_remedy():
    for idle in (1.0, [1.0, 1.0]):
        with pytest.raises(fs.InvalidInput, match=r"cannot act at guidance scale 1.*leave it out, or raise"):
            fs.check_negative(idle)
        with pytest.raises(fs.InvalidInput, match="cannot act on a guidance-distilled network"):
            fs.check_negative(idle, distilled=True)
    for acts in (0.0, 2.0, [1.0, 3.0], fs.GuidanceSchedule.linear(1.0, 2.0)):
        fs.check_negative(acts)
        fs.check_negative(acts, distilled=True)
