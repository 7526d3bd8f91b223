"""An image is the same alone, in any batch and on any thread, and a run touches nothing that is not its own."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import fewstep as fs

from .problems import SCHEDULES

SCHEDULE = SCHEDULES["scaled_linear"]
SHAPE = (3, 5, 7)  # of odd size, so that images lie anywhere in the vectors of the processor


def network(x, t):
    return 0.5 * x - 0.01 * x * x * x


def plan_of(name, steps=6, **options):
    return fs.compile(name, schedule=SCHEDULE, steps=steps, grid="karras", **options)


def denoiser():
    return fs.Network(network, SCHEDULE, "v_prediction")


@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_an_image_of_a_batch_is_the_same_image_alone(name):
    plan = plan_of(name)
    batch = fs.sample(plan, denoiser(), shape=(4, *SHAPE), seed=11)
    for i in range(4):
        assert torch.equal(batch[i : i + 1], fs.sample(plan, denoiser(), shape=(1, *SHAPE), seed=11 + i))
    mixed = fs.sample(plan, denoiser(), shape=(3, *SHAPE), seed=[13, 11, 13])
    assert torch.equal(mixed, batch[[2, 0, 2]])


@pytest.mark.parametrize("name", [name for name, s in fs.SAMPLERS.items() if s.stochastic])
def test_seeds_decide_what_is_drawn_on_the_way(name):
    plan, start = plan_of(name), torch.ones(1, *SHAPE)
    first, again, other = (fs.sample(plan, denoiser(), start=start, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert float((first - other).abs().max()) > 0.01


@pytest.mark.parametrize("name", [name for name, s in fs.SAMPLERS.items() if not s.stochastic])
def test_without_noise_the_start_decides_alone(name):
    plan, start = plan_of(name), torch.ones(1, *SHAPE)
    assert not plan.stochastic
    assert torch.equal(*(fs.sample(plan, denoiser(), start=start, seed=s) for s in (1, 2)))


@pytest.mark.parametrize("name", ["ddim", "sde-dpmpp-2m", "unipc-3", "restart"])
def test_no_global_random_state_is_read_or_changed(name):
    plan = plan_of(name)

    def states():
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002
        return torch.get_rng_state().tolist(), kind, keys.tolist(), rest, random.getstate()

    before = states()
    first = fs.sample(plan, denoiser(), shape=(2, *SHAPE), seed=3)
    assert states() == before
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    random.seed(99)
    assert torch.equal(fs.sample(plan, denoiser(), shape=(2, *SHAPE), seed=3), first)


@pytest.mark.parametrize(
    "name", ["ddim", "dpmpp-2m", "heun", "unipc-3", "euler-a", "dpmpp-sde", "sde-dpmpp-3m", "restart"]
)
def test_sixteen_threads_with_one_plan_draw_what_one_after_the_other_does(name):
    plan, shared = plan_of(name, 12), denoiser()
    serial = [fs.sample(plan_of(name, 12), denoiser(), shape=(2, *SHAPE), seed=[i, -i]) for i in range(16)]
    gate = threading.Barrier(16)

    def run(i):
        gate.wait()
        return fs.sample(plan, shared, shape=(2, *SHAPE), seed=[i, -i])

    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(run, range(16)))
    assert all(torch.equal(a, b) for a, b in zip(together, serial, strict=True))


def test_threads_may_run_different_plans_of_one_denoiser():
    names = ["ddim", "dpmpp-2m", "heun", "unipc-3"] * 4
    plans, shared = {name: plan_of(name) for name in names}, denoiser()
    serial = [fs.sample(plans[name], shared, shape=(1, *SHAPE), seed=i) for i, name in enumerate(names)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda i: fs.sample(plans[names[i]], shared, shape=(1, *SHAPE), seed=i), range(16)))
    assert all(torch.equal(a, b) for a, b in zip(together, serial, strict=True))
