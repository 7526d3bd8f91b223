"""Tuning from end to end on an exact mixture: it gains on noise that it never saw, and repeats itself."""

from dataclasses import replace

import pytest

import fewstep as fs
from fewstep.core.plan import TunedFor
from fewstep.tuning import Problem, Sizes, TuningSettings, Uncertified, tune

from .mixture import six

LINEAR = fs.schedules.linear()
FEW = ["unipc-2", "deis-3", "heun"]
SIZES = Sizes(train=256, validation=128, held_out=512, rungs=(8, 32))


def mixture(**more):
    return Problem.of(six(LINEAR, std=0.3), (6,), batch=256, digest="0123456789abcdef", **more)


@pytest.fixture(scope="module")
def tuned():
    """With every sampler; the others search among a few."""
    return tune(
        mixture(settings={"guidance": 1.0}),
        rows=5,
        settings=TuningSettings(seconds=10_000, iterations=100, sizes=SIZES),
    )


def test_the_learned_plan_beats_the_best_untuned_by_a_clear_factor_on_held_out_noise(tuned):
    found = tuned.certificate
    assert found.kind == "learned"
    assert len(tuned.plan.rows) == 5
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
    settings = TuningSettings(seconds=10_000, iterations=10, samplers=FEW, sizes=Sizes.of(64))
    found = [tune(mixture(seed=seed), rows=3, settings=settings).plan for seed in (0, 0)]
    found.append(tune(mixture(), rows=3, settings=replace(settings, seed=1)).plan)
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_ctrl_c_keeps_the_best_so_far():
    def watch(stage, done, of, words):
        if stage == "learning" and done >= 25:
            raise KeyboardInterrupt

    settings = TuningSettings(seconds=10_000, iterations=1000, samplers=FEW, sizes=SIZES)
    found = tune(mixture(), rows=4, settings=settings, watch=watch)
    assert found.certificate.stopped == "interrupted"
    assert found.certificate.kind == "learned"
    assert found.certificate.over_untuned.low > 1


def test_ctrl_c_before_there_is_a_plan_ends_it():
    def watch(stage, done, of, words):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(mixture(), rows=4, settings=TuningSettings(samplers=FEW, sizes=SIZES), watch=watch)


def test_ctrl_c_while_the_plan_is_certified_hands_it_over_without_a_certificate():
    kept = []

    def watch(stage, done, of, words):
        if stage == "certificate" and done == 1:
            raise KeyboardInterrupt
        if stage == "learning":
            kept.append(words)
            if done >= 25:
                raise KeyboardInterrupt

    few = TuningSettings(seconds=10_000, iterations=1000, samplers=FEW, sizes=SIZES)
    with pytest.raises(Uncertified) as stopped:
        tune(mixture(), rows=4, watch=watch, settings=few)
    plan = stopped.value.plan
    assert (plan.recipe.sampler, len(plan.rows)) == ("learned", 4)
    assert kept
    only_first = tune(
        mixture(),
        rows=4,
        watch=lambda stage, *more: None if stage == "certificate" else watch(stage, *more),
        settings=few,
    )
    assert only_first.plan == plan
    assert isinstance(stopped.value, KeyboardInterrupt)


def test_where_nothing_beats_the_default_it_is_returned():
    schedule = fs.schedules.edm()
    point = Problem.of(lambda x, t: x * 0 + 0.5, (6,), schedule)  # every plan ends on the data
    default = fs.compile("ddim", schedule=schedule, steps=3)
    settings = TuningSettings(samplers=FEW, sizes=Sizes.of(16), iterations=5, seconds=10_000)
    found = tune(point, rows=3, default=default, settings=settings)
    assert found.plan == default
    assert "the default is returned" in found.certificate.verdict


def test_other_settings_are_tried_too():
    other = six(LINEAR, std=0.4)
    problem = mixture(elsewhere={"wider": lambda numbers: other})
    settings = TuningSettings(samplers=FEW, sizes=Sizes.of(32), iterations=0, seconds=10_000)
    found = tune(problem, rows=4, settings=settings).certificate
    assert found.elsewhere["wider"].value > 0.5
    assert found.learning is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rows": 1}, "rows must be a whole number from 2 to 32, got 1"),
        ({"rows": 4.0}, "got 4.0"),
        ({"seconds": 0.0}, "seconds must be above 0"),
        ({"samplers": ["unipc-9"]}, "unknown sampler without noise 'unipc-9': did you mean 'unipc-"),
        ({"samplers": ["euler-a"]}, "unknown sampler without noise"),
        ({"iterations": -1}, "iterations at least 0"),
        ({"default": fs.compile("ddim", schedule=LINEAR, steps=5)}, "the default has 5 rows on linear, and 4"),
        ({"default": fs.compile("ddim", schedule=fs.schedules.edm(), steps=4)}, "on edm"),
        ({"guidance": 2.0}, "a problem has its own guidance and prompts"),
    ],
)
def test_bad_input_says_what_is_allowed(more, message):
    own = {name: more[name] for name in ("rows", "default", "guidance") if name in more}
    rest = {name: value for name, value in more.items() if name not in own}
    with pytest.raises(fs.InvalidInput, match=message):
        tune(mixture(), **{"rows": 4, **own}, settings=TuningSettings(**rest))


def test_a_problem_needs_a_schedule_a_shape_and_a_seed_in_range():
    with pytest.raises(fs.InvalidInput, match="give schedule="):
        Problem.of(lambda x, t: x, (6,))
    with pytest.raises(fs.InvalidInput, match="shape must hold"):
        Problem.of(lambda x, t: x, (0,), LINEAR)
    with pytest.raises(fs.InvalidInput, match="seed must be a whole number"):
        mixture(seed=-1)
    with pytest.raises(fs.InvalidInput, match="at most the 16 training images"):
        Sizes(train=16)
    with pytest.raises(fs.InvalidInput, match="gives no finite images"):
        tune(Problem.of(lambda x, t: x * float("nan"), (6,), LINEAR), rows=4, settings=TuningSettings(samplers=FEW))


def test_a_pipeline_is_tuned_as_it_draws():
    pipe = fs.load("digits")
    few = TuningSettings(samplers=["ddim", "deis-3"], sizes=Sizes.of(8), iterations=0, seconds=10_000, seed=3, batch=8)
    plan, certificate = fs.tune(pipe, nfe=8, guidance=3.0, settings=few)
    assert (certificate.rows, certificate.nfe, certificate.seed) == (4, 8, 3)
    assert certificate.model == {"name": "digits", "digest": pipe.model.identity.weights}
    assert certificate.settings == {"guidance": 3.0}
    default = next(row for row in certificate.compared if row.kind == "default")
    assert (default.digest, default.nfe) == (pipe.plan(steps=4).digest, 8)
    assert pipe([3], sampler=plan, guidance=3.0).tensor.shape == (1, 1, 8, 8)
