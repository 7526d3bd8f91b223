"""A mixture of Gaussians whose condition leaves out some of its means, as a network on the flow schedule."""

from __future__ import annotations

import torch
from torch import Tensor

import fewstep as fs
from fewstep.tuning import Problem

FLOW = fs.schedules.flow()
MEANS = torch.randn(12, 6, generator=torch.Generator().manual_seed(3))


def network(x: Tensor, t: Tensor, few: Tensor) -> Tensor:
    """E[x0 | x_t]; where `few` is 1 the data are of the first four means alone. It gives gradients to t."""
    alpha, sigma, std = (1 - t)[:, None], t[:, None], 0.3
    variance = alpha**2 * std**2 + sigma**2
    distance = (x[:, None] - alpha[:, None] * MEANS.to(x)).square().sum(dim=2)
    left_out = 1e4 * few[:, None].to(x) * (torch.arange(12) >= 4)
    share = torch.softmax(-0.5 * distance / variance - left_out, dim=1) @ MEANS.to(x)
    return share + alpha * std**2 / variance * (x - alpha * share)


def guided(scale: object = 3.0, **options: object) -> fs.Guided:
    """The network under the condition, away from none."""
    given = {"few": torch.ones(1)}, {"few": torch.zeros(1)}
    return fs.Guided(fs.Network(network, FLOW, "sample"), *given, scale, **options)  # type: ignore[arg-type]


def problem(scale: float = 3.0) -> Problem:
    """Of images under guidance."""
    return Problem.of(guided(scale), (6,), batch=512, digest="0123456789abcdef", settings={"guidance": scale})
