"""A network on Gaussian data that is linear in the state, with a matrix that is a smooth function of its times.

It predicts average velocities of a flow, y = (1 - t) x0 + t e, from t down to r. At first these are exact: along a
direction of variance l, with w = y - (1 - t) m and a(t) = l (1 - t)^2 + t^2,

    u = -m + ((t + r) - l (2 - t - r)) / (a(t) + sqrt(a(t) a(r))) w

which is the velocity itself where r = t, and leads to the end of the flow where r = 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import schedules
from fewstep.denoise.row import RowFacts
from fewstep.training import STUDENT, TEACHER, Batch, Draws, Method, Phase, Role, Roles
from fewstep.training.levels import at_times, euler, noised

from .gaussian import DIMENSIONS, Gaussian, Samples

HIDDEN, FEATURES = 32, 4
FLOW = schedules.flow()
DATA = Gaussian.usual()._replace(variances=torch.tensor([1.0, 0.6, 0.35]).double())
TIMES = (0.1, 0.3, 0.5, 0.75, 0.9, 0.98)


class Smooth(nn.Module):
    """The best velocity, or the exact average one, and a small network of both times that learns what to add."""

    def __init__(self, average: bool = False) -> None:
        super().__init__()
        self.average = average
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.inner = nn.Sequential(
                nn.Linear(2 * FEATURES, HIDDEN),
                nn.Tanh(),
                nn.Linear(HIDDEN, HIDDEN),
                nn.Tanh(),
                nn.Linear(HIDDEN, DIMENSIONS * (DIMENSIONS + 1)),
            )
        for weight in self.inner[-1].parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Tensor, t: Tensor, r: Tensor | None = None) -> Tensor:
        r = torch.zeros_like(t) if r is None else r
        mean, directions, variances = (value.to(x.dtype) for value in DATA)
        t1, r1 = t[:, None], (r if self.average else t)[:, None]
        here, there = (variances * (1 - time) ** 2 + time**2 for time in (t1, r1))
        about = (x - (1 - t1) * mean) @ directions
        best = ((t1 + r1) - variances * (2 - t1 - r1)) / (here + (here * there).sqrt()) * about
        more = self.inner(torch.cat([features(t), features(r)], 1)).unflatten(1, (DIMENSIONS, DIMENSIONS + 1))
        return best @ directions.T - mean + (more[..., :-1] @ x[..., None])[..., 0] + more[..., -1]


def features(t: Tensor) -> Tensor:
    """(B, 4) of times (B,)."""
    return torch.stack([t, (5 * t).tanh(), (5 * t).cos(), (5 * t).sin()], 1)


def network(average: bool = False, second_time: bool = False) -> fs.Network:
    """The denoiser of such a network."""
    return fs.Network(Smooth(average), FLOW, "flow", rows=RowFacts(second_time=second_time))


def roles_of(student: fs.Network) -> Roles:
    """A student, and the best velocity as its teacher."""
    teacher = network()
    assert teacher.module is not None
    teacher.module.requires_grad_(False).eval()
    return {STUDENT: Role(student), TEACHER: Role(teacher, trained=False)}


class Single(Samples):
    """The samples in float32."""

    def __init__(self) -> None:
        super().__init__(DATA)

    def batch(self, numbers: Sequence[int]) -> Batch:
        return Batch(super().batch(numbers).data.float())


def ways(ends: Sequence[float]) -> Iterator[tuple[float, float]]:
    """From each of some times down to these shares of it."""
    return ((t, share * t) for t in TIMES for share in ends)


@torch.no_grad()
def far(student: fs.Network, ends: Sequence[float] = (0.0,)) -> float:
    """How far a student's steps from `TIMES` to shares of these end from the flow, as a share of where it ends: the
    root mean square over states and steps.
    """
    exact, generator = network(average=True, second_time=True), torch.Generator().manual_seed(7)
    data, noise = torch.randn(2, 512, DIMENSIONS, generator=generator)
    found = []
    for t, r in ways(ends):
        here, there = (at_times(FLOW, time, data) for time in (t, r))
        x = noised(DATA.data(data.double()).float(), noise, here)
        reached, wanted = (euler(each, x, here.towards(there), there) for each in (student, exact))
        found.append((reached - wanted).square().mean() / wanted.square().mean())
    return float(torch.stack(found).mean().sqrt())


def whole(count: int = 24) -> tuple[Batch, Tensor]:
    """Samples and their noise (B, d), whose means and covariances are exactly those of data and noise."""
    generator = torch.Generator().manual_seed(3)
    raw = torch.randn(count, 2 * DIMENSIONS, generator=generator, dtype=torch.float64)
    z = torch.linalg.qr(raw - raw.mean(0))[0] * count**0.5
    return Batch(DATA.data(z[:, :DIMENSIONS])), z[:, DIMENSIONS:]


def doubled(roles: Roles) -> Roles:
    """The roles in float64."""
    for role in roles.values():
        role.module.double()
        role.network.dtype = torch.float64
    return roles


def gradient(method: Method, roles: Roles, batch: Batch, phase: Phase) -> float:
    """The norm of the gradient of a method's loss of the student's weights."""
    count = len(batch)
    (loss,) = method.losses(roles, batch, phase, Draws(0, 0, range(count), range(count), count))
    weights = list(roles[STUDENT].weights.values())
    found = torch.autograd.grad(loss.value, weights, allow_unused=True)
    return float(torch.stack([each.norm() for each in found if each is not None]).norm())
