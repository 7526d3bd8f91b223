"""The derivative of a network's estimate along a path of states, where the state and its level move together.

With D(x, level) the estimate, and tangents of x, t, alpha and sigma by a parameter of the path, here log k with k =
sigma / alpha, the derivative is

    dD = dD/dx dx + dD/dt dt + dD/dalpha dalpha + dD/dsigma dsigma

"jvp" is forward mode: one call of the network, exact to rounding. Attention is computed in its plain form meanwhile, as
its faster ones have no forward mode. "difference" takes the estimates at two states, a step before and a step behind:

    dD = (D(x + h dx, ..) - D(x - h dx, ..)) / 2 h

Its error grows with h^2, and rounding with 1 / h: 0.005 of the parameter's range is right for networks in float32.
Neither keeps anything for a gradient. Both ask the network as it is without a `Place`: in float32, and not compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
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
from fewstep.distillation.terms.targets import masked
from fewstep.training import Batch, Draws, Role, Roles, schedule_of
from fewstep.training.levels import noised

WAYS = ("auto", "jvp", "difference")
STEP, FINE = 0.005, (0.0002, 0.0008)
"""Of the difference that is learned from, and of those that test, shares of the parameter's range. Of the latter short
waves need the smaller one, and large values, which round more, the larger one.
"""
SURE = 0.01
"""By how much two ways may differ, relative to the derivative."""
INSTEAD = "use consistency, which takes no derivative"
DERIVATIVE = "derivative"
"""The role of a student's network whose derivative is taken."""
Estimate = Callable[[Tensor, Level], Tensor]
"""Of the data, in states at a level: the same function whenever it is asked, its dropout too."""


class Direction(NamedTuple):
    """Tangents of states and of their level by log k.

    Attributes:
        x: (B, ..); `t`: (B,); `alpha`, `sigma`: (B, 1, ..).
    """

    x: Tensor
    t: Tensor
    alpha: Tensor
    sigma: Tensor


def direction_of(schedule: Schedule, level: Level, data: Tensor, noise: Tensor) -> Direction:
    """The tangents of the states alpha data + sigma noise (B, ..), at levels where alpha and sigma are above 0.

    Along a teacher's trajectory `data` is its estimate, and `noise` what the state then has of it.
    """
    times = np.array([row[0] for row in level.host])
    alpha, sigma = schedule.derivatives(times)
    pace = 1 / (sigma / schedule.sigma(times) - alpha / schedule.alpha(times))  # dt / d log k
    columns = [torch.from_numpy(each * pace).to(data).reshape(level.alpha.shape) for each in (alpha, sigma)]
    return Direction(columns[0] * data + columns[1] * noise, torch.from_numpy(pace).to(level.t), *columns)


@torch.no_grad()
def forward(estimate: Estimate, x: Tensor, level: Level, direction: Direction) -> Tensor:
    """The derivative by forward mode. Raises `RuntimeError` where the network does something that has none."""
    with forward_ad.dual_level(), exactly(), sdpa_kernel(SDPBackend.MATH):
        moving = (x, level.t, level.alpha, level.sigma)
        x, t, alpha, sigma = (forward_ad.make_dual(*pair) for pair in zip(moving, direction, strict=True))
        tangent = forward_ad.unpack_dual(estimate(x, level._replace(t=t, alpha=alpha, sigma=sigma))).tangent
        return torch.zeros_like(x) if tangent is None else tangent


@torch.no_grad()
def difference(estimate: Estimate, x: Tensor, level: Level, direction: Direction, step: float) -> Tensor:
    """The derivative by a central difference."""

    def moved(by: float) -> Tensor:
        there = (x, level.t, level.alpha, level.sigma)
        states, t, alpha, sigma = (value + by * slope for value, slope in zip(there, direction, strict=True))
        return estimate(states, level._replace(t=t, alpha=alpha, sigma=sigma))

    with exactly():
        return (moved(step) - moved(-step)) / (2 * step)


@contextmanager
def exactly() -> Iterator[None]:
    """Within it networks are not compiled, and convolutions on a GPU have all digits of float32."""
    kept = torch.backends.cudnn
    with ExitStack() as all_of:
        all_of.enter_context(torch.compiler.set_stance("force_eager"))
        if torch.cuda.is_available():
            flags = kept.flags(kept.enabled, kept.benchmark, deterministic=kept.deterministic, allow_tf32=False)
            all_of.enter_context(flags)
        yield


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

    def along(self, batch: Batch, x: Tensor, level: Level, direction: Direction, draws: Draws) -> Tensor:
        """(B, ..) the derivative of the estimates of the data in states `x` (B, ..), with the dropout of a step."""
        estimate = partial(masked, self.bare.answering(batch), draws=draws)
        if not self.step:
            return forward(estimate, x, level, direction)
        return difference(estimate, x, level, direction, self.step)


def differentiated(roles: Roles, method: str) -> Differentiated:
    """The role whose derivative is taken. Raises `InvalidInput` where nobody has asked the method for it."""
    role = roles.get(DERIVATIVE)
    if not isinstance(role, Differentiated):
        raise InvalidInput(
            f"{method} takes a derivative, and no role says how: add those of fewstep.training.further_roles(method, "
            "roles, batch) to the roles of the run, as distill does"
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
        digits = str(network.dtype).removeprefix("torch.")
        raise InvalidInput(
            f"{method} takes a derivative, for which {digits} has too few digits: load the teacher in float32 (to save "
            f"memory train in the precision bfloat16), or {INSTEAD}"
        )


def role_of(method: str, way: str, student: Role, batch: Batch, level: Level, span: float) -> dict[str, Role]:
    """How a method takes the derivative of its student, after a test on the samples of a batch at some level.

    Args:
        method: its name; `way`: "auto", "jvp" or "difference".
        span: the range of log k, by which the derivative is taken.

    Raises:
        InvalidInput: the network has no derivative, or not by the way that is asked for.
    """
    check_network(student.network, method)
    count, schedule = len(batch), schedule_of(student.network)
    draws = Draws(0, 0, range(count), range(count), count, batch.data.device)
    noise = draws.normal("noise", batch.data.shape[1:]).to(batch.data)
    direction = direction_of(schedule, level, batch.data, noise)
    estimate = partial(masked, student.answering(student.asked(batch, draws)), draws=draws)
    step = tested(way, estimate, noised(batch.data, noise, level), level, direction, span)
    role = Differentiated(student.network, trained=False, told=student.told, plain=student.network, step=step)
    return {DERIVATIVE: role}


def tested(way: str, estimate: Estimate, x: Tensor, level: Level, direction: Direction, span: float) -> float:
    """The step of the difference by which the derivative of an estimate is taken; 0 is forward mode.

    Forward mode is to agree with fine differences, and these with each other where it cannot be had. "auto" then is
    forward mode where the wider difference agrees with it too. Where that does not, the network's answer has waves in
    time that are shorter than the step: forward mode finds their slope, and a student learns better from a difference,
    which averages it out.

    Raises `InvalidInput` where what is asked for is more than 1% from what it is to agree with.
    """
    step, fine = span * STEP, [span * share for share in FINE]
    exact, why = tried(estimate, x, level, direction)
    coarser, finer = ([refined(estimate, x, level, direction, each / part) for each in fine] for part in (1, 2))
    if exact is not None and (apart := min(relative(exact, one) for one in coarser)) > SURE:
        exact, why = None, f"it is {apart:.1%} from differences of two estimates"
    if way == "jvp" and exact is None:
        raise InvalidInput(
            f'the derivative of this network cannot be taken by forward mode ("jvp"), as {why}: take "difference", or '
            f"{INSTEAD}"
        )
    if exact is None and (apart := min(map(relative, finer, coarser))) > SURE:
        raise InvalidInput(
            f"this network has no derivative: a difference of its estimates is {apart:.1%} from one of half the step, "
            f"and forward mode is not to be had, as {why}. Look whether it rounds its time or its state, load it in "
            f"float32, or {INSTEAD}"
        )
    if way == "jvp":
        return 0.0
    wide = difference(estimate, x, level, direction, step)
    return 0.0 if way == "auto" and exact is not None and relative(exact, wide) <= SURE else step


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
        words = str(error).strip().splitlines() or [type(error).__name__]
        return None, f"torch says: {words[0].rstrip('.'):.200}"


def relative(first: Tensor, other: Tensor) -> float:
    """How far two derivatives are apart, as a share of the first; infinite where one is not finite."""
    apart = float((first - other).double().norm() / first.double().norm().clamp(min=1e-12))
    return apart if np.isfinite(apart) else float("inf")
