"""The derivative of a network's estimate along a path of states, where the state and its level move together.

With D(x, level) the estimate, and tangents of x, t, alpha and sigma by some parameter of the path, the derivative is

    dD = dD/dx dx + dD/dt dt + dD/dalpha dalpha + dD/dsigma dsigma

"jvp" is forward mode: one call of the network, exact to rounding. Attention is computed in its plain form meanwhile, as
its faster ones have no forward mode. "difference" takes the estimates at two states, a step before and a step behind:

    dD = (D(x + h dx, ..) - D(x - h dx, ..)) / 2 h

Its error grows with h^2, and rounding with 1 / h: 0.005 of the parameter's range is right for networks in float32.
Neither keeps anything for a gradient. Both ask the network as it is without a `Place`: in float32, and not compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Level
from fewstep.denoise.convert import Network
from fewstep.training import Role, Roles
from fewstep.training.draws import Float

WAYS = ("auto", "jvp", "difference")
STEP, FINE = 0.005, 0.0002
"""Of the difference that is learned from, and of those that test, shares of the parameter's range."""
SURE = 0.01
"""By how much two ways may differ, relative to the derivative."""
INSTEAD = "use consistency, which takes no derivative"
DERIVATIVE = "derivative"
"""The role of a student's network whose derivative is taken."""
Estimate = Callable[[Tensor, Level], Tensor]
"""Of the data, in states at a level: the same function whenever it is asked, its dropout too."""


class Direction(NamedTuple):
    """Tangents of states and of their level, by one parameter.

    Attributes:
        x: (B, ..); `t`: (B,); `alpha`, `sigma`: (B, 1, ..).
    """

    x: Tensor
    t: Tensor
    alpha: Tensor
    sigma: Tensor


def direction_of(schedule: Schedule, level: Level, data: Tensor, noise: Tensor, pace: Float) -> Direction:
    """The tangents of the states alpha data + sigma noise (B, ..) as they go to more noise.

    Along a teacher's trajectory `data` is its estimate, and `noise` what the state then has of it. `pace` (B,) is how
    much of the schedule's time goes with a unit of the parameter.
    """
    alpha, sigma = schedule.derivatives(times_of(level))
    columns = [torch.from_numpy(each * pace).to(data).reshape(level.alpha.shape) for each in (alpha, sigma)]
    return Direction(columns[0] * data + columns[1] * noise, torch.from_numpy(pace).to(level.t), *columns)


def pace_of_log_ratio(schedule: Schedule, level: Level) -> Float:
    """(B,) dt / d log(sigma / alpha) at levels where alpha and sigma are above 0."""
    times = times_of(level)
    alpha, sigma = schedule.derivatives(times)
    return 1 / (sigma / schedule.sigma(times) - alpha / schedule.alpha(times))


def times_of(level: Level) -> Float:
    """(B,) float64 on the host."""
    return np.array([row[0] for row in level.host])


@torch.no_grad()
def forward(estimate: Estimate, x: Tensor, level: Level, direction: Direction) -> Tensor:
    """The derivative by forward mode. Raises `RuntimeError` where the network does something that has none."""
    plain, eager = sdpa_kernel(SDPBackend.MATH), torch.compiler.set_stance("force_eager")
    with forward_ad.dual_level(), plain, eager:
        moving = (x, level.t, level.alpha, level.sigma)
        x, t, alpha, sigma = (forward_ad.make_dual(*pair) for pair in zip(moving, direction, strict=True))
        tangent = forward_ad.unpack_dual(estimate(x, level._replace(t=t, alpha=alpha, sigma=sigma))).tangent
        return torch.zeros_like(x) if tangent is None else tangent


@torch.no_grad()
def difference(estimate: Estimate, x: Tensor, level: Level, direction: Direction, step: float) -> Tensor:
    """The derivative by a central difference."""

    def moved(by: float) -> Tensor:
        t, alpha, sigma = level.t + by * direction.t, level.alpha + by * direction.alpha, level.sigma + by * direction.sigma
        return estimate(x + by * direction.x, level._replace(t=t, alpha=alpha, sigma=sigma))

    return (moved(step) - moved(-step)) / (2 * step)


@dataclass(frozen=True, eq=False, kw_only=True)
class Differentiated(Role):
    """The student's network as its derivative is taken.

    Attributes:
        plain: the network as it is without a `Place`.
        step: of a difference; 0 is forward mode.
    """

    plain: Network
    step: float

    @property
    def bare(self) -> Role:
        """It answers as it is without a `Place`."""
        return Role(self.plain, trained=False, told=self.told)

    def along(self, estimate: Estimate, x: Tensor, level: Level, direction: Direction) -> Tensor:
        """(B, ..) the derivative of the estimate of the data in states `x` (B, ..) at a level."""
        if not self.step:
            return forward(estimate, x, level, direction)
        return difference(estimate, x, level, direction, self.step)


def differentiated(roles: Roles, method: str) -> Differentiated:
    """The role whose derivative is taken. Raises `InvalidInput` where nobody has asked the method for it."""
    role = roles.get(DERIVATIVE)
    if not isinstance(role, Differentiated):
        raise InvalidInput(
            f"{method} takes a derivative, and no role says how: add those of fewstep.training.further_roles(method, "
            "student, batch) to the roles of the run, as distill does"
        )
    return role


def check_way(way: str) -> None:
    """Raise `InvalidInput` for a way that there is not."""
    if way not in WAYS:
        raise unknown_name("derivative", str(way), WAYS)


def check_network(network: Network, method: str) -> None:
    """Raise `InvalidInput` for a network without a derivative by its time, or with too few digits for one."""
    if network.integer_time:
        raise InvalidInput(
            f"{method} takes the derivative by time, and this network is told whole numbers of it alone: {INSTEAD}"
        )
    if network.dtype in (torch.float16, torch.bfloat16):
        raise InvalidInput(
            f"{method} takes a derivative, for which {str(network.dtype).removeprefix('torch.')} has too few digits: load "
            f"the teacher in float32 (to save memory train it in the precision bfloat16), or {INSTEAD}"
        )


def tested(
    way: str, student: Role, estimate: Estimate, x: Tensor, level: Level, direction: Direction, span: float
) -> Differentiated:
    """How a student's derivative is taken, after a test of its `estimate` in some states; `span` is the parameter's
    range.

    Forward mode is to agree with fine differences, and these with each other where it cannot be had. "auto" then is
    forward mode where the wider difference agrees with it too. Where that does not, the network's answer has waves in
    time that are shorter than the step. Their slope is what forward mode finds, a difference averages it out, and a
    student learns better from that.

    Raises `InvalidInput` where what is asked for is more than 1% from what it is to agree with.
    """
    step, fine = span * STEP, span * FINE
    exact, why = tried(estimate, x, level, direction)
    coarser, finer = (refined(estimate, x, level, direction, each) for each in (fine, fine / 2))
    if exact is not None and relative(exact, coarser) > SURE:
        why, exact = f"it is {relative(exact, coarser):.1%} from differences of two estimates", None
    if way == "jvp" and exact is None:
        raise InvalidInput(
            f'the derivative of this network cannot be taken by forward mode ("jvp"), as {why}: take "difference", or '
            f"{INSTEAD}"
        )
    if exact is None and relative(finer, coarser) > SURE:
        raise InvalidInput(
            f"this network has no derivative: one difference of its estimates is {relative(finer, coarser):.1%} from "
            f"another of half the step, and not by forward mode, as {why}. Look whether it rounds its time or its "
            f"state, load it in float32, or {INSTEAD}"
        )
    forward_too = exact is not None and relative(exact, difference(estimate, x, level, direction, step)) <= SURE
    by_forward = way == "jvp" or (way == "auto" and forward_too)
    return Differentiated(
        student.network,
        trained=False,
        told=student.told,
        plain=student.network,
        step=0.0 if by_forward else step,  # noqa
    )


def refined(estimate: Estimate, x: Tensor, level: Level, direction: Direction, step: float) -> Tensor:
    """A difference whose error is of fourth order in the step, from those of a step and of half of it."""
    whole, half = (difference(estimate, x, level, direction, each) for each in (step, step / 2))
    return (4 * half - whole) / 3


def tried(estimate: Estimate, x: Tensor, level: Level, direction: Direction) -> tuple[Tensor | None, str]:
    """The derivative by forward mode; or none, and why."""
    try:
        return forward(estimate, x, level, direction), ""
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return None, f"torch says: {str(error).strip().partition(chr(10))[0]:.200}"


def relative(first: Tensor, other: Tensor) -> float:
    """How far two derivatives are apart, as a share of the first; infinite where one is not finite."""
    apart = float((first - other).double().norm() / first.double().norm().clamp(min=1e-12))
    return apart if np.isfinite(apart) else float("inf")
