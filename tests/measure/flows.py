"""Problems with a closed-form flow."""

import torch

import fewstep as fs

MEAN, SPREAD = 0.4, 0.3


def gaussian(schedule):
    """The exact denoiser of data N(MEAN, SPREAD^2) in every value."""

    def denoiser(x, t):
        alpha = torch.as_tensor(schedule.alpha(t.double().numpy()), dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        sigma = torch.as_tensor(schedule.sigma(t.double().numpy()), dtype=x.dtype).reshape(alpha.shape)
        gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
        return MEAN + gain * (x - alpha * MEAN)

    return denoiser


def solution(schedule, noise):
    """Where its flow takes unit noise until t_min, and the estimate of the data there, as in every adaptive solve.

    On the way (x - alpha mean) / sqrt(alpha^2 spread^2 + sigma^2) stays as it is.
    """
    (alpha, sigma), (later, least) = ((float(schedule.alpha(t)), float(schedule.sigma(t))) for t in _ends(schedule))
    scaled = (sigma * noise - alpha * MEAN) / (alpha**2 * SPREAD**2 + sigma**2) ** 0.5
    x = later * MEAN + (later**2 * SPREAD**2 + least**2) ** 0.5 * scaled
    return gaussian(schedule)(x, torch.tensor([float(schedule.t_min)], dtype=x.dtype))


def _ends(schedule):
    return float(schedule.t_max), float(schedule.t_min)


def noise(batch, *shape, seed=0):
    return torch.randn(batch, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plan(sampler, steps, schedule, **options):
    return fs.compile(sampler, schedule=schedule, steps=steps, **options)
