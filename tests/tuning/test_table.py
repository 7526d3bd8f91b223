"""Tables and plans are the same thing; their marginals are exact whatever the weights."""

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.core.check import marginal_error
from fewstep.core.plan import TunedFor
from fewstep.models import Identity, check_tuned_for
from fewstep.tuning.rivals import deterministic
from fewstep.tuning.table import LEARNED, Table, plan_of, spread, table_of

from .mixture import six

SCHEDULES = {
    "linear": fs.schedules.linear(),
    "edm": fs.schedules.edm(),
    "flow": fs.schedules.flow(),
    "zero_snr": fs.schedules.scaled_linear(zero_snr=True),
}


def start(batch=5):
    return torch.randn(batch, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def random_table(schedule, n, seed=0, size=1.0):
    random = np.random.default_rng(seed)
    times = fs.compile("ddim", schedule=schedule, steps=n, grid="karras").recipe.times
    return Table(np.array(times), np.tril(random.normal(scale=size, size=(n, n))))


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", ["ddim", "dpmpp-3m", "unipc-3", "deis-4", "ipndm-4", "dpmpp-2s", "dpm-3s", "rk4"])
def test_a_plan_and_its_table_make_the_same_states(kind, name):
    schedule = SCHEDULES[kind]
    plan = fs.compile(name, schedule=schedule, steps=4, grid="karras")
    table = table_of(plan)
    if table is None:  # a singlestep method may look ahead of its step's end
        assert name == "rk4"
        return
    np.testing.assert_allclose(table.weights.sum(axis=1), 1, atol=1e-12)
    again = plan_of(table, schedule)
    assert len(again.rows) == len(plan.rows)
    if [row.t for row in again.rows] != [row.t for row in plan.rows]:  # stages that coincide are moved apart
        assert name == "rk4"
        return
    expected = fs.sample(plan, six(schedule), noise=start())
    got = fs.sample(again, six(schedule), noise=start())
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_any_weights_keep_the_marginals_to_rounding(kind, n):
    plan = plan_of(random_table(SCHEDULES[kind], n), SCHEDULES[kind])
    assert float(np.max(marginal_error(plan))) < 1e-12
    assert plan.tolerance == 1e-12
    assert plan.registers <= max(n, 1)
    assert plan.steps == len(plan.rows) == n


def test_a_learned_plan_reads_back_to_the_same_bits_and_samples():
    schedule = SCHEDULES["linear"]
    plan = plan_of(random_table(schedule, 6), schedule, TunedFor("0123456789abcdef", {"guidance": 2.0}))
    again = fs.Plan.from_json(plan.to_json())
    assert again == plan
    assert again.recipe.sampler == LEARNED
    assert again.recipe.options == {}
    assert again.tuned_for == TunedFor("0123456789abcdef", {"guidance": 2.0})
    denoiser = six(schedule)
    assert torch.equal(fs.sample(again, denoiser, shape=(3, 6)), fs.sample(plan, denoiser, shape=(3, 6)))


def test_weights_that_amplify_rounding_beyond_the_bar_are_refused():
    schedule = SCHEDULES["linear"]
    with pytest.raises(fs.InvalidInput, match="is off by"):
        plan_of(random_table(schedule, 6, size=1e6), schedule)


def test_only_deterministic_plans_from_one_state_have_a_table():
    schedule = SCHEDULES["linear"]
    assert table_of(fs.compile("ddim", schedule=schedule, steps=3, eta=1.0)) is None
    assert table_of(fs.compile("euler-a", schedule=schedule, steps=3)) is None
    with_table = [n for n in deterministic() if table_of(fs.compile(n, schedule=schedule, steps=4)) is not None]
    assert {"heun", "unipc-4", "dpmpp-fast", "lms-4", "deis-3"} <= set(with_table)


def test_times_that_coincide_are_moved_apart_and_others_stay():
    times = spread(np.array([10.0, 6.0, 6.0, 6.0, 2.0, 0.0]))
    assert times[[0, 1, 4, 5]].tolist() == [10, 6, 2, 0]
    assert np.all(np.diff(times) < 0)
    assert times[3] > 5.98
    own = np.array([80.0, 3.0, 0.002, 0.0])
    np.testing.assert_array_equal(spread(own), own)


def test_a_plan_tuned_for_another_model_is_refused_and_an_ordinary_one_is_not():
    schedule = SCHEDULES["linear"]
    plan = plan_of(random_table(schedule, 3), schedule, TunedFor("a" * 16))
    check_tuned_for(plan, Identity("mine", "a" * 16), "use --force")
    with pytest.raises(
        fs.InvalidInput, match=r"tuned for a model with digest aaaaaaaaaaaaaaaa, this is 'mine'.*--force"
    ):
        check_tuned_for(plan, Identity("mine", "b" * 16), "use --force")
    check_tuned_for(fs.compile("ddim", schedule=schedule, steps=3), Identity("mine", "b" * 16), "use --force")
