"""The mixture's closed forms, against differentiation and against each other."""

import math

import pytest
import torch

import fewstep as fs
from fewstep.denoise.base import Level
from fewstep.show.mixture import Mixture, ring

UNEVEN = Mixture([[1.0, 0.5], [-1.0, 0.2], [0.3, -1.4]], [0.3, 0.6, 0.45], [2.0, 1.0, 3.0])
POINTS = torch.tensor([[0.1, 0.2], [1.5, -1.0], [-3.0, 0.4], [0.0, 0.0]], dtype=torch.float64)


def noised(mixture, alpha, sigma):
    """The mixture of x_t itself: its density is that of the noisy states."""
    stds = (alpha**2 * mixture.stds**2 + sigma**2).sqrt()
    return Mixture((alpha * mixture.means).tolist(), stds.tolist(), mixture.weights.tolist())


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 3.0), (0.6, 0.8), (0.95, 0.1)])
def test_the_denoiser_is_the_score_of_the_noisy_density(alpha, sigma):
    x = POINTS.clone().requires_grad_()
    noised(UNEVEN, alpha, sigma).density(x).log().sum().backward()
    assert x.grad is not None
    tweedie = (POINTS + sigma**2 * x.grad) / alpha  # Efron 2011, eq. 1.4
    torch.testing.assert_close(UNEVEN.data(POINTS, alpha, sigma), tweedie, rtol=1e-10, atol=1e-10)


def test_the_density_has_mass_one():
    line = torch.linspace(-5, 5, 401, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    assert float(UNEVEN.density(points).sum()) * (10 / 400) ** 2 == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("angle", [0.2, 0.9, 1.5])
def test_the_flow_is_that_of_the_denoiser(angle):
    cos, sin = math.cos(angle), math.sin(angle)
    expected = (cos * POINTS - UNEVEN.data(POINTS, cos, sin)) / sin
    torch.testing.assert_close(UNEVEN.velocity(POINTS, angle), expected, rtol=1e-10, atol=1e-11)


def test_the_flow_is_finite_at_both_ends():
    assert bool(torch.isfinite(UNEVEN.velocity(POINTS, math.pi / 2)).all())
    assert float(UNEVEN.velocity(POINTS, 0.0).abs().max()) == 0


def test_levels_of_each_image_give_what_one_level_gives():
    schedule = fs.schedules.cosine()
    level = Level.of(schedule, POINTS, torch.tensor([10.0, 400.0, 800.0, 990.0], dtype=torch.float64))
    together = UNEVEN.output(POINTS, level)
    for i, (_, alpha, sigma) in enumerate(level.host):
        torch.testing.assert_close(together[i : i + 1], UNEVEN.data(POINTS[i : i + 1], alpha, sigma))


def test_float32_states_stay_float32():
    assert UNEVEN.data(POINTS.float(), 0.8, 0.6).dtype == torch.float32


def test_a_ring_has_its_modes_at_its_radius():
    mixture = ring(4, radius=2.0, std=0.1)
    torch.testing.assert_close(mixture.means.norm(dim=1), torch.full((4,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(mixture.means[0], torch.tensor([0.0, 2.0], dtype=torch.float64))
    assert mixture.weights.tolist() == [0.25] * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ring(0), "modes must be an integer in 1 .. 64, got 0"),
        (lambda: ring(65), "got 65"),
        (lambda: ring(True), "got True"),
        (lambda: ring(3, std=0.0), "std must be a finite number above zero"),
        (lambda: ring(3, radius=math.nan), "radius must be a finite number above zero"),
        (lambda: Mixture([], []), "got 0, 0 and 0"),
        (lambda: Mixture([[0.0]], [1.0, 2.0]), "got 1, 2 and 2"),
        (lambda: Mixture([[0.0]], [1.0], [-1.0]), "weight must be a finite number above zero"),
        (lambda: Mixture([[math.inf, 0.0]], [1.0]), "finite coordinates"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(make, message):
    with pytest.raises(fs.InvalidInput, match=message):
        make()
