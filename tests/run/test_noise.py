"""Noise is named by seed and interval, and by nothing else."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fewstep as fs
from fewstep.core.plan import Interval
from fewstep.run.noise import START, key_of, seeds_of, unit_noise
from proof.problems import SCHEDULES

LINEAR = SCHEDULES["linear"]


def drawn(seeds, key=START, shape=(8,), dtype=torch.float32):
    return unit_noise(seeds, key, torch.empty(len(seeds), *shape, dtype=dtype))


def test_the_noise_of_an_image_is_its_own_whoever_is_in_the_batch():
    batch = drawn([3, 4, 5, 3])
    for i, seed in enumerate([3, 4, 5, 3]):
        assert torch.equal(batch[i : i + 1], drawn([seed]))
    assert torch.equal(batch[0], batch[3])
    assert not torch.equal(batch[0], batch[1])


def test_the_noise_is_the_same_in_every_precision():
    wide = drawn([1], dtype=torch.float64)
    assert wide.dtype == torch.float64
    assert torch.equal(wide, drawn([1]).double())
    assert torch.equal(drawn([1], dtype=torch.bfloat16), drawn([1]).bfloat16())


def test_the_numbers_do_not_change_between_versions():
    # What a seed means is a promise: pictures carry their seed.
    expected = [0.059911035001277924, 0.015559634193778038, -1.1644384860992432, -0.13264712691307068]
    assert drawn([0], shape=(4,))[0].tolist() == expected
    key = key_of(Interval(999.0, 749.0))
    assert key == 4490649116156514222
    assert drawn([7], key, (2,))[0].tolist() == [0.28253868222236633, -0.24101559817790985]


def test_another_process_draws_the_same():
    code = (
        "import torch; from fewstep.core.plan import Interval; from fewstep.run.noise import key_of, unit_noise; "
        "print(unit_noise([5], key_of(Interval(0.7, 0.3, 2)), torch.empty(1, 3)).tolist())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert out.stdout.strip() == str(drawn([5], key_of(Interval(0.7, 0.3, 2)), (3,)).tolist())


def test_the_noise_is_unit_noise_and_that_of_other_seeds_and_intervals_is_independent():
    keys = [START, *(key_of(Interval(t, t - 1.0)) for t in range(10))]
    rows = torch.stack([drawn([seed], key, (20_000,))[0] for seed in (0, 1) for key in keys])
    correlation = np.corrcoef(rows.numpy())
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 0.035  # five standard deviations
    assert abs(float(rows.mean())) < 0.01
    assert abs(float(rows.std()) - 1) < 0.01
    assert abs(float((rows**4).mean()) - 3) < 0.1


@given(
    st.tuples(st.floats(-1, 1000), st.floats(-1, 1000), st.integers(0, 9)),
    st.tuples(st.floats(-1, 1000), st.floats(-1, 1000), st.integers(0, 9)),
)
def test_intervals_that_differ_have_keys_that_differ_and_none_is_that_of_the_start(a, b):
    assert (key_of(Interval(*a)) == key_of(Interval(*b))) == (a == b and str(a) == str(b))
    assert START != key_of(Interval(*a)) < 2**64


def test_a_tail_of_a_grid_meets_the_noise_of_the_whole_grid():
    times = [900.0, 600.0, 300.0, 100.0, -1.0]
    whole = fs.compile("euler-a", schedule=LINEAR, times=times)
    tail = fs.compile("euler-a", schedule=LINEAR, times=times[2:])
    assert [row.noise for row in whole.rows[2:]] == [row.noise for row in tail.rows]
    states = []
    fs.sample(whole, lambda x, t: states.append(x.clone()) or x / 2, shape=(2, 3), seed=8)
    again = fs.sample(tail, lambda x, t: x / 2, start=states[2], seed=8)
    assert torch.equal(again, fs.sample(whole, lambda x, t: x / 2, shape=(2, 3), seed=8))


def test_an_interval_that_is_crossed_again_draws_anew():
    plan = fs.compile("restart", schedule=SCHEDULES["edm"], steps=8, grid="karras", restarts=3)
    intervals = [row.noise for row in plan.rows if row.noise is not None]
    assert [i.repeat for i in intervals] == [0, 1, 2]
    assert len({i[:2] for i in intervals}) == 1
    noises = [drawn([0], key_of(i)) for i in intervals]
    assert not torch.equal(noises[0], noises[1])


@pytest.mark.parametrize("seed", [4, np.int64(4), [4, 5], (4, 5), np.array([4, 5]), torch.tensor([4, 5]), range(4, 6)])
def test_seeds_count_up_from_one_or_are_given(seed):
    assert seeds_of(seed, 2) == [4, 5]


@pytest.mark.parametrize("seed", [[1], [1, 2, 3], 1.5, [1.5, 2.0], "ab", None, ["a", "b"]])
def test_seeds_that_do_not_fit_are_refused(seed):
    with pytest.raises(fs.InvalidInput, match="seed"):
        seeds_of(seed, 2)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64 - 1])
def test_any_64_bits_are_a_seed(seed):
    assert torch.isfinite(drawn([seed])).all()
    assert not torch.equal(drawn([seed]), drawn([0]))
