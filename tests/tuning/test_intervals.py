"""Guidance in some rows alone: what it costs, that it is learned so, and that it pays at equal evaluations."""

import pytest
import torch

import fewstep as fs
from fewstep.tuning import Problem, Sizes, TuningSettings, tune
from fewstep.tuning.intervals import RowLayout, fitted_layouts, layouts
from fewstep.tuning.learning import Parameters, Start, first_outputs, gram_of, opening
from fewstep.tuning.page import page_of
from fewstep.tuning.table import table_of
from fewstep.tuning.teacher import path_of
from fewstep.tuning.times import step_costs

from .conditional import FLOW, guided, network, problem

SIZES = Sizes(train=256, validation=128, held_out=512, path=64, rungs=(8, 32))
MORE = {"samplers": ["ddim", "dpmpp-2m"], "sizes": SIZES, "iterations": 150, "seconds": 10_000.0}


def counted(plan: fs.Plan, images: int = 4) -> float:
    """Evaluations of the network an image, as it is called."""
    seen: list[int] = []

    def counting(x, t, few):
        seen.append(len(x))
        return network(x, t, few)

    given = {"few": torch.ones(1)}, {"few": torch.zeros(1)}
    denoiser = fs.Guided(fs.Network(counting, FLOW, "sample"), *given, 3.0).following(plan)
    fs.sample(plan, denoiser, shape=(images, 6), seed=0)
    return sum(seen) / images


def test_layouts_are_all_that_cost_so_many_evaluations():
    found = layouts(8, 32)
    assert len(found) == len(set(found)) == 1 + 3 + 5 + 7
    assert {one.evaluations for one in found} == {8}
    assert found[0] == RowLayout(4, 0, 4)
    assert RowLayout(6, 3, 2).factors == (0, 0, 0, 1, 1, 0)
    assert {one.rows for one in layouts(8, 5)} == {4, 5}


def test_fitted_layouts_come_best_first_and_cost_what_they_say():
    given = problem()
    teacher = fs.compile("unipc-3", schedule=FLOW, steps=48)
    path = path_of(given, teacher, range(64))
    seen = []
    found = fitted_layouts(
        given, path, step_costs(path, FLOW), 6, 32, (0.9, 1.0, 1.1),
        watch=lambda done, of, error: seen.append((done, of)),
    )  # fmt: skip
    assert [one.error for one in found] == sorted(one.error for one in found)
    assert len(found) == len(layouts(6, 32))
    assert seen[-1][0] == seen[-1][1] == len(found) + 2 * 6
    for one in found[:4]:
        assert one.factors is not None
        plan = Start(one.table, one.factors).plan(FLOW)
        assert plan.nfe(guided=True) == counted(plan) == 6
    few = fitted_layouts(given, path, step_costs(path, FLOW), 6, 32, (1.0,), enough=lambda: len(seen) > 0)
    assert few == []


def test_a_row_that_is_not_guided_stays_so_and_a_run_is_what_the_plan_makes():
    given = problem()
    table = table_of(fs.compile("unipc-2", schedule=FLOW, steps=4))
    outputs = first_outputs(given, table, range(8))
    parameters = Parameters(table, FLOW, gram_of(outputs), factors=[0.0, 1.0, 1.2, 0.0])
    start, slope = given.noise(range(8)), outputs[0] - opening(given, table, range(8), guided=False)
    result = parameters.run(given.begun(range(8)), start, outputs[0], False, slope)
    plan = parameters.plan()
    assert plan.guidance_factors == (0.0, 1.0, 1.2, 0.0)
    torch.testing.assert_close(result.detach(), given.solve(plan, range(8)), rtol=1e-4, atol=1e-5)
    gradient = torch.autograd.grad(result.double().square().sum(), parameters.factors)[0]
    assert gradient[0] == gradient[3] == 0
    assert abs(gradient[1]) > 1e-3
    assert counted(plan) == 6


@pytest.fixture(scope="module")
def tuned():
    other = Problem.of(guided(1.0), (6,)).denoiser
    given = problem()
    object.__setattr__(given, "elsewhere", {"guidance 1": other, "guidance 2": Problem.of(guided(2.0), (6,)).denoiser})
    return {
        interval: tune(given, nfe=6, settings=TuningSettings(**MORE, interval=interval)) for interval in (False, True)
    }


def test_more_rows_of_which_some_are_guided_beat_all_guided_ones_at_equal_evaluations(tuned):
    alike, some = tuned[False], tuned[True]
    assert counted(alike.plan) == counted(some.plan) == 6
    assert len(some.plan.rows) > len(alike.plan.rows) == 3
    assert 0 in some.plan.guidance_factors
    assert some.certificate.compared[0].rmse.value < alike.certificate.compared[0].rmse.value / 1.1


def test_the_certificate_says_what_it_costs(tuned):
    found = tuned[True].certificate
    assert {row.nfe for row in found.compared} == {6}
    plan = tuned[True].plan
    rows = len(plan.rows)
    guided_ = plan.nfe(guided=True) - rows
    assert (
        f"At the cost of 3 guided rows, 6 evaluations an image, the learned plan of {rows} rows, {guided_} of them "
        "guided, has"
    ) in found.verdict
    assert set(found.elsewhere) == {"guidance 2"}  # without guidance it costs more rows
    assert set(tuned[False].certificate.elsewhere) == {"guidance 1", "guidance 2"}
    assert found.search["layouts"] > 3
    page = page_of(found.to_json())
    assert f"<td class='n'>{rows}</td><td class='n'>6</td>" in page
    assert "at the cost of 3 guided rows</title>" in page


def test_the_same_seed_gives_the_same_plan(tuned):
    again = tune(problem(), nfe=6, settings=TuningSettings(**MORE, interval=True))
    assert again.plan.recipe.times == tuned[True].plan.recipe.times
    assert again.plan.guidance_factors == tuned[True].plan.guidance_factors


def test_an_interval_that_no_time_was_left_for_is_said():
    sizes = Sizes.of(16)
    settings = TuningSettings(interval=True, samplers=["ddim"], sizes=sizes, iterations=0, seconds=1e-3)
    found = tune(problem(), nfe=6, settings=settings).certificate
    assert found.search["layouts"] == 0
    said = "guidance in some rows alone was not tried: no time was left"
    assert found.stopped == said
    assert said in page_of(found.to_json())


@pytest.mark.parametrize(("scale", "factors"), [(1.0, True), (3.0, False)])
def test_an_interval_without_factors_to_learn_is_refused(scale, factors):
    with pytest.raises(fs.InvalidInput, match="interval needs classifier-free guidance at a constant scale"):
        tune(problem(scale), nfe=6, settings=TuningSettings(**MORE, interval=True, factors=factors))


def test_an_interval_finds_the_rows_itself():
    with pytest.raises(fs.InvalidInput, match="with interval, the number of rows is found: give nfe="):
        tune(problem(), rows=3, settings=TuningSettings(interval=True))
