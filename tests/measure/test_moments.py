"""Moments of a stream, and the bounded sample of its rows."""

import math

import numpy as np
import pytest
import torch

from fewstep.core.errors import InvalidInput
from fewstep.measure.kept import Kept
from fewstep.measure.moments import Moments


def rows(n, width=5, seed=0, shift=0.0):
    return torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift


def streamed(values, *sizes):
    moments = Moments(values.shape[1])
    for part in values.split(list(sizes)):
        moments.update(part)
    return moments


def test_a_stream_has_the_mean_and_covariance_of_the_whole_however_it_is_cut():
    x = rows(100) @ rows(5, seed=1)
    for sizes in ((100,), (1, 0, 9, 90), (33, 33, 34)):
        moments = streamed(x, *sizes)
        assert moments.n == 100
        np.testing.assert_allclose(moments.mean, x.mean(0), rtol=0, atol=1e-14)
        np.testing.assert_allclose(moments.covariance, np.cov(x.numpy().T), rtol=0, atol=1e-13)


def test_a_large_mean_loses_nothing_of_a_small_spread():
    x = rows(1000) * 1e-3
    moments = streamed(x + 1e6, *[10] * 100)
    # The values themselves are rounded to 1e-10 there; sums of squares would be rounded to 1e-4.
    np.testing.assert_allclose(moments.covariance, np.cov(x.numpy().T), rtol=0, atol=1e-11)


def test_workers_merge_into_what_one_would_have_seen():
    x = rows(90, shift=3.0)
    whole = streamed(x, 90)
    merged = streamed(x[:20], 20)
    for part in (Moments(5), streamed(x[20:21], 1), streamed(x[21:], 40, 29)):
        merged.merge(part)
    assert merged.n == whole.n
    np.testing.assert_allclose(merged.mean, whole.mean, atol=1e-14)
    np.testing.assert_allclose(merged.scatter, whole.scatter, atol=1e-12)


def test_low_precision_features_are_summed_in_float64():
    moments = Moments(3)
    moments.update(torch.ones(7, 3, dtype=torch.float16))
    assert (moments.mean.dtype, moments.covariance.dtype) == (torch.float64, torch.float64)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(4, 6), "width 6 where 5 were expected"),
        (torch.zeros(4), "batch, width"),
        (torch.zeros(4, 5).long(), "floating point tensors"),
        (np.zeros((4, 5)), "got ndarray"),
        (torch.tensor([[0.0] * 5, [math.nan] * 5, [math.inf] * 5]), "features of 2 of 3 images hold NaN"),
    ],
)
def test_features_that_do_not_fit_are_refused_and_change_nothing(values, message):
    moments = streamed(rows(10), 10)
    before = moments.scatter.clone()
    with pytest.raises(InvalidInput, match=message):
        moments.update(values)
    assert moments.n == 10
    assert torch.equal(moments.scatter, before)


def test_impossible_moments_are_refused():
    with pytest.raises(InvalidInput, match="at least 1, got 0"):
        Moments(0)
    with pytest.raises(InvalidInput, match="width 4 cannot be merged into those of width 5"):
        Moments(5).merge(Moments(4))
    with pytest.raises(InvalidInput, match="at least 2 rows of features, got 1"):
        _ = streamed(rows(1), 1).covariance


def kept(values, limit, seed, *sizes):
    sample = Kept(values.shape[1], limit, seed)
    for part in values.split(list(sizes)):
        sample.update(part)
    return sample


def test_all_rows_are_kept_in_order_up_to_the_limit():
    x = rows(50)
    assert torch.equal(kept(x, 50, 0, 20, 30).rows, x)


def test_which_rows_are_kept_depends_on_the_seed_and_not_on_the_batches():
    x = rows(500)
    assert torch.equal(kept(x, 60, 3, 500).rows, kept(x, 60, 3, 1, 199, 300).rows)
    assert not torch.equal(kept(x, 60, 3, 500).rows, kept(x, 60, 4, 500).rows)


def test_every_row_is_as_likely_to_be_kept_across_two_workers():
    x = torch.arange(300.0)[:, None]
    counts = torch.zeros(300)
    for trial in range(200):
        sample = kept(x[:200], 30, 2 * trial, 200)
        sample.merge(kept(x[200:], 30, 2 * trial + 1, 100))
        assert len(sample.rows) == 30
        counts[sample.rows[:, 0].long()] += 1
    # 20 expected for each row; of a third from the second worker, 2,000 +- 37
    assert abs(float(counts[200:].sum()) - 2000) < 4 * 37
    assert 5 < counts.min() < 20 < counts.max() < 40


def test_workers_that_share_a_seed_are_refused():
    with pytest.raises(InvalidInput, match="two workers have drawn with seed 7"):
        kept(rows(5), 3, 7, 5).merge(kept(rows(5), 3, 7, 5))
    with pytest.raises(InvalidInput, match="keeps 3 rows and the other 4"):
        kept(rows(5), 3, 7, 5).merge(kept(rows(5), 4, 8, 5))
    with pytest.raises(InvalidInput, match="at least 2 rows, got 1"):
        Kept(5, 1, 0)
