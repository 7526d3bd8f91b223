"""A network on Gaussian data that is linear in the state, with a matrix that is a smooth function of its times.

It predicts the velocity e - x0 on a flow, x = (1 - t) x0 + t e. At first it is the best one: along a direction of
variance l, with w = x - (1 - t) m,

    E[e - x0 | x] = -m + (t - l (1 - t)) / (l (1 - t)^2 + t^2) w
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .gaussian import DIMENSIONS, Gaussian

HIDDEN = 32


class Smooth(nn.Module):
    """The best velocity, and a small network of the time that learns what is to be added."""

    def __init__(self, data: Gaussian, seed: int = 0) -> None:
        super().__init__()
        for name, value in zip(Gaussian._fields, data, strict=True):
            self.register_buffer(name, value.float())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.inner = nn.Sequential(
                nn.Linear(4, HIDDEN),
                nn.Tanh(),
                nn.Linear(HIDDEN, HIDDEN),
                nn.Tanh(),
                nn.Linear(HIDDEN, DIMENSIONS * (DIMENSIONS + 1)),
            )
        for weight in self.inner[-1].parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        near = 1 - t[:, None]
        far = t[:, None]
        about = (x - near * self.mean) @ self.directions
        best = (far - near * self.variances) / (near**2 * self.variances + far**2) * about
        feel = [far, (far / 0.2).tanh(), (5 * far).cos(), (5 * far).sin()]
        more = self.inner(torch.cat(feel, 1)).unflatten(1, (DIMENSIONS, DIMENSIONS + 1))
        return best @ self.directions.T - self.mean + (more[..., :-1] @ x[..., None])[..., 0] + more[..., -1]
