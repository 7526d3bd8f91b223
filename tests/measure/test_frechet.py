"""The Frechet distance: exact values, singular covariances, its interval, and its limit."""

import numpy as np
import pytest
import scipy.linalg
import torch

from fewstep.core.errors import InvalidInput
from fewstep.measure.frechet import Gaussian, frechet_between, frechet_distance, frechet_infinity

from .sets import gaussian, summed


def of(mean, covariance):
    return Gaussian.of(torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(covariance, dtype=torch.float64))


def reference(x, y):
    """The formula as everybody has it, through the square root of the product."""
    a, b = np.cov(x.numpy().T), np.cov(y.numpy().T)
    root = scipy.linalg.sqrtm(a @ b)
    shift = x.mean(0).numpy() - y.mean(0).numpy()
    return float(shift @ shift + np.trace(a) + np.trace(b) - 2 * np.trace(root.real))


@pytest.mark.parametrize("width", [1, 2, 16, 64, 200])
def test_it_equals_the_float64_formula(width):
    mix = torch.randn(width, width, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    x, y = gaussian(500, width, 0), gaussian(700, width, 1, 0.8, 0.3) @ mix / width**0.5
    want = float((x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2) if width == 1 else reference(x, y)
    got = frechet_distance(summed(x), summed(y)).value
    assert got == pytest.approx(want, rel=1e-10, abs=1e-8)
    assert got > 0.1


def test_it_is_exact_for_covariances_that_commute_also_singular_ones():
    rng = np.random.Generator(np.random.Philox(key=0))
    turn, _ = np.linalg.qr(rng.standard_normal((30, 30)))
    a, b = rng.uniform(0.1, 2.0, 30), rng.uniform(0.1, 2.0, 30)
    a[:12], b[20:] = 0, 0
    mean = rng.standard_normal(30)
    want = float(mean @ mean + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum())
    got = frechet_between(of(mean, turn * a @ turn.T), of(np.zeros(30), turn * b @ turn.T))
    assert got == pytest.approx(want, rel=1e-12)


def test_a_set_has_no_distance_to_itself_and_the_distance_has_no_direction():
    x = summed(gaussian(300, 20, 0) @ torch.eye(20, 20, dtype=torch.float64).roll(3, 0))
    y = summed(gaussian(300, 20, 1, 1.3))
    assert frechet_distance(x, x).value < 1e-12
    assert frechet_distance(x, y).value == pytest.approx(frechet_distance(y, x).value, rel=1e-12)
    point = of(np.ones(3), np.zeros((3, 3)))
    assert frechet_between(point, of(np.zeros(3), np.eye(3))) == pytest.approx(6.0)
    assert frechet_between(point, point) == 0.0


def test_images_on_a_plane_of_the_features_are_measured_soundly():
    flat = gaussian(400, 6, 0) @ gaussian(6, 40, 1)
    other = gaussian(400, 6, 2, 1.1) @ gaussian(6, 40, 1)
    # In an orthonormal basis of that plane nothing is singular, and the distance is the same.
    basis, _ = torch.linalg.qr(gaussian(6, 40, 1).T)
    want = reference(flat @ basis, other @ basis)
    assert frechet_distance(summed(flat), summed(other)).value == pytest.approx(want, rel=1e-9)


def test_the_interval_is_as_wide_as_the_figure_varies_from_draw_to_draw():
    real = summed(gaussian(20_000, 8, 99))
    figures = [frechet_distance(summed(gaussian(400, 8, seed, 1.1, 0.1)), real) for seed in range(60)]
    spread = np.std([f.value for f in figures])
    widths = np.array([f.high - f.low for f in figures]) / (2 * 1.96)
    assert 0.8 < widths.mean() / spread < 1.25


def test_the_interval_of_a_stream_that_was_not_all_kept_is_that_of_all_of_it():
    real, values = summed(gaussian(5000, 8, 99)), gaussian(8000, 8, 1, 1.1, 0.1)
    whole, part = (frechet_distance(summed(values, keep=keep), real) for keep in (8000, 2000))
    assert part.value == pytest.approx(whole.value, rel=1e-12)
    assert (part.high - part.low) == pytest.approx(whole.high - whole.low, rel=0.2)


def test_infinity_is_nearer_to_the_distance_of_many_images_in_nine_of_ten_draws():
    width = 64
    real = summed(gaussian(50_000, width, 1000))
    many = frechet_distance(summed(gaussian(50_000, width, 1001, 1.05, 0.02)), real).value
    nearer, plain_errors, errors = 0, [], []
    for draw in range(10):
        few = summed(gaussian(2000, width, draw, 1.05, 0.02))
        plain, infinite = frechet_distance(few, real).value, frechet_infinity(few, real).value
        plain_errors.append(abs(plain - many))
        errors.append(abs(infinite - many))
        nearer += errors[-1] < plain_errors[-1]
    assert nearer >= 9
    assert np.mean(errors) < np.mean(plain_errors) / 4


def test_infinity_of_a_stream_uses_all_its_images_and_the_kept_ones():
    width = 16
    real = summed(gaussian(20_000, width, 1000))
    values = gaussian(20_000, width, 1001)
    part = summed(values, keep=2000)
    infinite, plain = frechet_infinity(part, real), frechet_distance(part, real)
    assert abs(infinite.value) < 0.01 < 10 * plain.value
    assert infinite.n == plain.n == 20_000
    assert (infinite.settings, infinite.measure) == ("parts=3", "frechet distance infinity")


def test_too_few_images_for_the_width_are_refused():
    real, few = summed(gaussian(200, 64, 0)), summed(gaussian(64, 64, 1))
    with pytest.raises(InvalidInput, match=r"64 generated images are too few: .* on 64 features needs at least 65"):
        frechet_distance(few, real)
    with pytest.raises(InvalidInput, match="64 reference images are too few"):
        frechet_distance(real, few)
    with pytest.raises(InvalidInput, match="3 parts of 63, which must be larger than the width: give at least 195"):
        frechet_infinity(summed(gaussian(190, 64, 0)), real)
    with pytest.raises(InvalidInput, match="parts must be a whole number from 2 to 50, got 1"):
        frechet_infinity(real, real, parts=1)


def test_a_covariance_that_is_none_is_refused():
    with pytest.raises(InvalidInput, match=r"finite covariance of \(3, 3\), got \(2, 2\)"):
        of(np.zeros(3), np.eye(2))
    with pytest.raises(InvalidInput, match="finite covariance"):
        of(np.zeros(2), np.full((2, 2), np.nan))
