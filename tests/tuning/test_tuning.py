"""Tuning from end to end on an exact mixture: it gains on noise that it never saw, and repeats itself."""

import pytest

import fewstep as fs
from fewstep.core.plan import TunedFor
from fewstep.tuning import Problem, Sizes, Uncertified, tune

from .mixture import six

LINEAR = fs.schedules.linear()
FEW = ["unipc-2", "deis-3", "heun"]
SIZES = Sizes(train=256, validation=128, held_out=512, rungs=(8, 32))


def mixture(**more):
    return Problem.of(six(LINEAR, std=0.3), (6,), batch=256, digest="0123456789abcdef", **more)


@pytest.fixture(scope="module")
def tuned():
    """With every sampler; the others search among a few."""
    return tune(mixture(settings={"guidance": 1.0}), 5, seconds=10_000, iterations=100, sizes=SIZES)


def test_the_learned_plan_beats_the_best_untuned_by_a_clear_factor_on_held_out_noise(tuned):
    found = tuned.certificate
    assert found.kind == "learned"
    assert tuned.plan.nfe == 5
    assert found.over_untuned.value > 2
    assert found.over_untuned.low > 1.5
    assert found.over_default.low >= found.over_untuned.low
    assert found.compared[0].digest == tuned.plan.digest == found.plan
    assert found.teacher["error"] < found.compared[0].rmse.value / 5


def test_the_plan_says_what_it_is_for_and_reads_back(tuned, tmp_path):
    tuned.plan.save(tmp_path / "plan.json")
    again = fs.Plan.load(tmp_path / "plan.json")
    assert again == tuned.plan
    assert again.tuned_for == TunedFor("0123456789abcdef", {"guidance": 1.0})
    assert again.tolerance == 1e-12


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    found = [
        tune(mixture(seed=seed), 3, seconds=10_000, iterations=10, samplers=FEW, sizes=Sizes.of(64)).plan
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_ctrl_c_keeps_the_best_so_far():
    def watch(stage, done, of, words):
        if stage == "learning" and done >= 25:
            raise KeyboardInterrupt

    found = tune(mixture(), 4, seconds=10_000, iterations=1000, samplers=FEW, sizes=SIZES, watch=watch)
    assert found.certificate.stopped == "interrupted"
    assert found.certificate.kind == "learned"
    assert found.certificate.over_untuned.low > 1


def test_ctrl_c_before_there_is_a_plan_ends_it():
    def watch(stage, done, of, words):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(mixture(), 4, samplers=FEW, sizes=SIZES, watch=watch)


def test_ctrl_c_while_the_plan_is_certified_hands_it_over_without_a_certificate():
    kept = []

    def watch(stage, done, of, words):
        if stage == "certificate" and done == 1:
            raise KeyboardInterrupt
        if stage == "learning":
            kept.append(words)
            if done >= 25:
                raise KeyboardInterrupt

    few = {"seconds": 10_000, "iterations": 1000, "samplers": FEW, "sizes": SIZES}
    with pytest.raises(Uncertified) as stopped:
        tune(mixture(), 4, watch=watch, **few)
    plan = stopped.value.plan
    assert (plan.recipe.sampler, plan.nfe) == ("learned", 4)
    assert kept
    only_first = tune(
        mixture(), 4, watch=lambda stage, *more: None if stage == "certificate" else watch(stage, *more), **few
    )
    assert only_first.plan == plan
    assert isinstance(stopped.value, KeyboardInterrupt)


def test_where_nothing_beats_the_default_it_is_returned():
    schedule = fs.schedules.edm()
    point = Problem.of(lambda x, t: x * 0 + 0.5, (6,), schedule)  # every plan ends on the data
    default = fs.compile("ddim", schedule=schedule, steps=3)
    found = tune(point, 3, default=default, samplers=FEW, sizes=Sizes.of(16), iterations=5, seconds=10_000)
    assert found.plan == default
    assert "the default is returned" in found.certificate.verdict


def test_other_settings_are_tried_too():
    other = six(LINEAR, std=0.4)
    problem = mixture(elsewhere={"wider": lambda numbers: other})
    found = tune(problem, 4, samplers=FEW, sizes=Sizes.of(32), iterations=0, seconds=10_000).certificate
    assert found.elsewhere["wider"].value > 0.5
    assert found.learning is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"nfe": 1}, "nfe must be a whole number from 2 to 32, got 1"),
        ({"nfe": 4.0}, "got 4.0"),
        ({"seconds": 0.0}, "seconds must be above 0"),
        ({"samplers": ["unipc-9"]}, "unknown sampler without noise 'unipc-9': did you mean 'unipc-"),
        ({"samplers": ["euler-a"]}, "unknown sampler without noise"),
        ({"iterations": -1}, "iterations at least 0"),
        ({"default": fs.compile("ddim", schedule=LINEAR, steps=5)}, "the default has 5 evaluations on linear, and 4"),
        ({"default": fs.compile("ddim", schedule=fs.schedules.edm(), steps=4)}, "on edm"),
    ],
)
def test_bad_input_says_what_is_allowed(more, message):
    with pytest.raises(fs.InvalidInput, match=message):
        tune(mixture(), **{"nfe": 4, **more})


def test_a_problem_needs_a_schedule_a_shape_and_a_seed_in_range():
    with pytest.raises(fs.InvalidInput, match="give schedule="):
        Problem.of(lambda x, t: x, (6,))
    with pytest.raises(fs.InvalidInput, match="shape must hold"):
        Problem.of(lambda x, t: x, (0,), LINEAR)
    with pytest.raises(fs.InvalidInput, match="seed must be a whole number"):
        mixture(seed=-1)
    with pytest.raises(fs.InvalidInput, match="are of the 16 training images"):
        Sizes(train=16)
    with pytest.raises(fs.InvalidInput, match="gives no finite images"):
        tune(Problem.of(lambda x, t: x * float("nan"), (6,), LINEAR), 4, samplers=FEW)
